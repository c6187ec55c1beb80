import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.ForwardingJavaFileObject;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.StandardLocation;

/** What javac reads and writes: the JDK's classes, no class path, class files in memory. */
final class JavaFiles extends ForwardingJavaFileManager<StandardJavaFileManager> {
  private final Map<String, List<JavaFileObject>> lists = new HashMap<>();
  Map<String, ClassFile> classes;

  JavaFiles(StandardJavaFileManager manager) {
    super(manager);
  }

  @Override
  public Iterable<JavaFileObject> list(
      Location location, String folder, Set<JavaFileObject.Kind> kinds, boolean deep)
      throws IOException {
    if (location == StandardLocation.CLASS_PATH) {
      return List.of();
    }
    String key = location.getName() + " " + folder + kinds + deep;
    List<JavaFileObject> list = lists.get(key);
    if (list == null) {
      list = new ArrayList<>();
      for (JavaFileObject file : super.list(location, folder, kinds, deep)) {
        list.add(file.getKind() == JavaFileObject.Kind.CLASS ? new Kept(file) : file);
      }
      if (!list.isEmpty()) {
        lists.put(key, list);
      }
    }
    return list;
  }

  @Override
  public String inferBinaryName(Location location, JavaFileObject file) {
    return super.inferBinaryName(location, file instanceof Kept ? ((Kept) file).file() : file);
  }

  @Override
  public boolean isSameFile(FileObject one, FileObject other) {
    return one == other;
  }

  @Override
  public JavaFileObject getJavaFileForOutput(
      Location location, String name, JavaFileObject.Kind kind, FileObject sibling) {
    ClassFile file = new ClassFile(name);
    classes.put(name, file);
    return file;
  }

  static final class Source extends SimpleJavaFileObject {
    private final String text;

    Source(String text) {
      super(URI.create("string:///Main.java"), Kind.SOURCE);
      this.text = text;
    }

    @Override
    public String getName() {
      return "Main.java";
    }

    @Override
    public CharSequence getCharContent(boolean ignoreErrors) {
      return text;
    }
  }

  static final class ClassFile extends SimpleJavaFileObject {
    final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

    ClassFile(String name) {
      super(URI.create("mem:///" + name.replace('.', '/') + ".class"), Kind.CLASS);
    }

    @Override
    public OutputStream openOutputStream() {
      bytes.reset();
      return bytes;
    }
  }

  /** A class file of the JDK that is read once. */
  static final class Kept extends ForwardingJavaFileObject<JavaFileObject> {
    private byte[] bytes;

    Kept(JavaFileObject file) {
      super(file);
    }

    JavaFileObject file() {
      return fileObject;
    }

    @Override
    public InputStream openInputStream() throws IOException {
      if (bytes == null) {
        try (InputStream in = super.openInputStream()) {
          bytes = in.readAllBytes();
        }
      }
      return new ByteArrayInputStream(bytes);
    }
  }
}
