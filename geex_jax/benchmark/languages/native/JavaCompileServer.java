import com.sun.source.tree.ClassTree;
import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.IdentifierTree;
import com.sun.source.tree.ImportTree;
import com.sun.source.tree.Tree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.SourcePositions;
import com.sun.source.util.TaskEvent;
import com.sun.source.util.TaskListener;
import com.sun.source.util.TreeScanner;
import com.sun.source.util.Trees;
import com.sun.tools.javac.api.JavacTaskImpl;
import com.sun.tools.javac.api.JavacTaskPool;
import com.sun.tools.javac.api.JavacTool;
import com.sun.tools.javac.main.Main.Result;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticListener;
import javax.tools.JavaFileObject;

/**
 * javac as a service on standard input and output. A message is its length in four bytes and its
 * bytes. Request: length in bytes of the text before the tests (4), that text, the tests. Answer:
 * 'C', the number of classes (4), and of each its name and its bytes, both with their length (4)
 * before them; or 'E' and what javac printed.
 *
 * <p>The result is that of a new javac. Compilers are reused, since most of their time goes into
 * reading the JDK's classes; one that could have kept something of an earlier program that matters
 * to this one is thrown away.
 */
public final class JavaCompileServer {
  private static final int MOST_USES = 1000;

  /** Text that is compiled by a compiler of its own, which nobody uses afterwards. */
  private static final Pattern ODD = Pattern.compile("\\b(package|module)\\b|\\\\u");

  private static final Pattern FAILURE =
      Pattern.compile("^(java[.a-z]*\\.[A-Za-z]+(Error|Exception)\\b.*)", Pattern.MULTILINE);

  private static final List<String> OPTIONS = List.of("-proc:none");

  private final JavacTool tool = JavacTool.create();
  private final JavaFiles files = new JavaFiles(tool.getStandardFileManager(null, null, null));
  private boolean pools = true;
  private Object pool; // a JavacTaskPool; the class may be missing
  private int uses;
  private final Set<String> declared = new TreeSet<>(); // by the programs that the pool has seen

  /** With this a program may nest about as deeply as in a new javac, whose code is warmer. */
  private static final long STACK = 5 << 19;

  public static void main(String[] arguments) {
    new Thread(null, JavaCompileServer::serve, "compiler", STACK).start();
  }

  private static void serve() {
    try {
      answerAll();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static void answerAll() throws IOException {
    DataInputStream in = new DataInputStream(System.in);
    DataOutputStream out = new DataOutputStream(new FileOutputStream(FileDescriptor.out));
    System.setOut(System.err);
    JavaCompileServer server = new JavaCompileServer();
    while (true) {
      int length = in.read();
      if (length < 0) {
        return;
      }
      length = length << 24 | in.readUnsignedByte() << 16 | in.readUnsignedShort();
      byte[] request = new byte[length];
      in.readFully(request);
      byte[] answer = server.answer(new DataInputStream(new ByteArrayInputStream(request)));
      ByteArrayOutputStream message = new ByteArrayOutputStream(answer.length + 4);
      new DataOutputStream(message).writeInt(answer.length);
      message.write(answer);
      message.writeTo(out);
    }
  }

  private byte[] answer(DataInputStream request) throws IOException {
    String code = new String(request.readNBytes(request.readInt()), StandardCharsets.UTF_8);
    String test = new String(request.readAllBytes(), StandardCharsets.UTF_8);
    Attempt done = compile(code, test);
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    DataOutputStream out = new DataOutputStream(bytes);
    out.writeByte(done.good ? 'C' : 'E');
    if (done.good) {
      out.writeInt(done.classes.size());
      for (Map.Entry<String, JavaFiles.ClassFile> entry : done.classes.entrySet()) {
        byte[] name = entry.getKey().getBytes(StandardCharsets.UTF_8);
        out.writeInt(name.length);
        out.write(name);
        out.writeInt(entry.getValue().bytes.size());
        entry.getValue().bytes.writeTo(out);
      }
    } else {
      out.write(done.messages.toString().getBytes(StandardCharsets.UTF_8));
    }
    return bytes.toByteArray();
  }

  private Attempt compile(String code, String test) {
    Attempt done = compile(code + test, code.length());
    if (!done.good || done.shadowed.isEmpty()) {
      return done;
    }
    // The program is as the reference has it, and compiles. Now the tests get the real types.
    StringBuilder qualified = new StringBuilder(code + test);
    int shift = 0;
    for (Map.Entry<Integer, String> place : done.shadowed.entrySet()) {
      qualified.insert(place.getKey() + shift, place.getValue());
      shift += place.getValue().length();
    }
    return compile(qualified.toString(), Integer.MAX_VALUE);
  }

  private Attempt compile(String text, int testsAt) {
    boolean odd = ODD.matcher(text).find();
    if (odd || !pools) {
      return new Attempt(text, testsAt).plainly();
    }
    try {
      if (pool == null || uses >= MOST_USES) {
        renew();
      }
      boolean fresh = uses == 0;
      Attempt done = new Attempt(text, testsAt).pooled();
      uses++;
      if (!fresh && (done.broken || done.deep || done.mentions(declared))) {
        renew();
        done = new Attempt(text, testsAt).pooled();
        uses++;
      }
      declared.addAll(done.types);
      if (done.broken || done.deep) {
        pool = null;
      }
      return done;
    } catch (NoClassDefFoundError | NoSuchMethodError error) {
      System.err.println("no pool of compilers: " + error);
      pools = false;
      return new Attempt(text, testsAt).plainly();
    } catch (RuntimeException | StackOverflowError error) {
      pool = null;
      return new Attempt(text, testsAt).plainly();
    }
  }

  private void renew() {
    pool = new JavacTaskPool(1);
    uses = 0;
    declared.clear();
  }

  /** One compilation. */
  private final class Attempt implements TaskListener, DiagnosticListener<JavaFileObject> {
    final String text;
    final int testsAt; // where the tests begin in the text
    final StringWriter messages = new StringWriter();
    final Map<String, JavaFiles.ClassFile> classes = new LinkedHashMap<>();
    final Set<String> types = new TreeSet<>(); // simple names that the program declares
    final Map<Integer, String> shadowed = new TreeMap<>(); // place in the tests -> "java.util."
    JavacTask task;
    boolean good;
    boolean broken; // javac itself failed
    boolean generating;
    boolean halfWritten; // an error while it wrote a class file; the next one would suffer
    boolean deep; // too deep to find all the types that it declares

    Attempt(String text, int testsAt) {
      this.text = text;
      this.testsAt = testsAt;
    }

    Attempt plainly() {
      try {
        return run((JavacTask) tool.getTask(messages, files, this, OPTIONS, null, sources()));
      } catch (RuntimeException | StackOverflowError error) {
        messages.write("javac failed: " + error);
        good = false;
        return this;
      }
    }

    Attempt pooled() {
      return ((JavacTaskPool) pool)
          .getTask(messages, files, this, OPTIONS, null, sources(), this::run);
    }

    private List<JavaFiles.Source> sources() {
      return List.of(new JavaFiles.Source(text));
    }

    private Attempt run(JavacTask task) {
      this.task = task;
      files.classes = classes;
      task.addTaskListener(this);
      Result result = ((JavacTaskImpl) task).doCall();
      good = result.isOK();
      broken = !good && (result != Result.ERROR || halfWritten);
      Matcher failure = FAILURE.matcher(messages.getBuffer());
      if (broken && failure.find()) { // the trace behind it differs from time to time
        String first = failure.group(1);
        messages.getBuffer().setLength(0);
        messages.append("javac failed: ").append(first);
      }
      return this;
    }

    /** Whether the text names one of `others` that it does not declare itself. */
    boolean mentions(Set<String> others) {
      for (String name : others) {
        if (types.contains(name)) {
          continue;
        }
        for (int at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + 1)) {
          int end = at + name.length();
          if ((at == 0 || !Character.isJavaIdentifierPart(text.charAt(at - 1)))
              && (end == text.length() || !Character.isJavaIdentifierPart(text.charAt(end)))) {
            return true;
          }
        }
      }
      return false;
    }

    @Override
    public void report(Diagnostic<? extends JavaFileObject> diagnostic) {
      if (diagnostic.getKind() == Diagnostic.Kind.ERROR) {
        messages.append(diagnostic.toString()).append('\n');
        halfWritten |= generating;
      }
    }

    @Override
    public void started(TaskEvent event) {
      generating = event.getKind() == TaskEvent.Kind.GENERATE;
    }

    @Override
    public void finished(TaskEvent event) {
      generating = false;
      if (event.getKind() != TaskEvent.Kind.PARSE) {
        return;
      }
      CompilationUnitTree unit = event.getCompilationUnit();
      try {
        findTypes(unit);
        findShadowed(unit);
      } catch (StackOverflowError error) {
        deep = true; // javac may manage all the same
      }
    }

    private void findTypes(CompilationUnitTree unit) {
      new TreeScanner<Void, Void>() {
        @Override
        public Void visitClass(ClassTree type, Void unused) {
          types.add(type.getSimpleName().toString());
          return super.visitClass(type, null);
        }
      }.scan(unit, null);
      types.remove("");
    }

    /** Finds where the tests name a type of the JDK whose name the program has taken. */
    private void findShadowed(CompilationUnitTree unit) {
      Map<String, String> real = new HashMap<>();
      for (Tree type : unit.getTypeDecls()) {
        if (type instanceof ClassTree) {
          String name = ((ClassTree) type).getSimpleName().toString();
          String home = home(name, unit);
          // A `main` that does not take java.lang.String is no main: nothing to repair.
          if (home != null && !name.equals("String")) {
            real.put(name, home);
          }
        }
      }
      if (real.isEmpty()) {
        return;
      }
      SourcePositions places = Trees.instance(task).getSourcePositions();
      new TreeScanner<Void, Void>() {
        @Override
        public Void visitIdentifier(IdentifierTree tree, Void unused) {
          String home = real.get(tree.getName().toString());
          int at = (int) places.getStartPosition(unit, tree);
          if (home != null && at >= testsAt) {
            shadowed.put(at, home);
          }
          return null;
        }
      }.scan(unit, null);
    }
  }

  /** The package, with a dot behind it, that `name` would come from if nobody declared it. */
  private static String home(String name, CompilationUnitTree unit) {
    if (name.equals("Main") || name.equals("Solution")) {
      return null;
    }
    List<String> packages = new ArrayList<>(List.of("java.lang."));
    for (ImportTree tree : unit.getImports()) {
      String text = tree.getQualifiedIdentifier().toString();
      if (!tree.isStatic() && text.endsWith(".*")) {
        packages.add(text.substring(0, text.length() - 1));
      }
    }
    for (String home : packages) {
      try {
        Class.forName(home + name, false, ClassLoader.getPlatformClassLoader());
        return home;
      } catch (ClassNotFoundException | LinkageError error) {
        continue;
      }
    }
    return null;
  }
}
