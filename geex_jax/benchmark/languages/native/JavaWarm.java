import java.math.BigInteger;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.*;
import java.util.regex.*;
import java.util.stream.*;

/** Uses much of what programs use, so that an archive of its classes speeds them up. */
public final class JavaWarm {
  interface Shape {
    double area();
  }

  static final class Square implements Shape {
    private final double side;

    Square(double side) {
      this.side = side;
    }

    @Override
    public double area() {
      return side * side;
    }
  }

  public static void main(String[] arguments) throws Exception {
    List<Integer> numbers = new ArrayList<>(Arrays.asList(5, 3, 8, 1));
    Collections.sort(numbers);
    numbers.sort(Comparator.comparing((Integer x) -> -x).thenComparing(Comparator.reverseOrder()));
    Map<String, Integer> counts = new HashMap<>();
    for (String word : "to be or not to be".split(" ")) {
      counts.put(word, counts.getOrDefault(word, 0) + 1);
      counts.merge(word, 1, Integer::sum);
      counts.computeIfAbsent(word + "!", String::length);
    }
    Set<Character> letters = new TreeSet<>();
    for (char c : "Hello, World".toCharArray()) {
      if (Character.isLetter(c) && !Character.isUpperCase(c)) {
        letters.add(c);
      }
    }
    Deque<Integer> stack = new ArrayDeque<>(new LinkedList<>(numbers));
    PriorityQueue<Integer> queue = new PriorityQueue<>((a, b) -> b - a);
    queue.addAll(stack);
    Stack<Object> old = new Stack<>();
    old.push(new LinkedHashMap<>(new TreeMap<>(counts)));
    String joined =
        numbers.stream().filter(x -> x > 1).map(x -> "n" + x).collect(Collectors.joining(", "));
    int sum = IntStream.rangeClosed(1, 10).filter(i -> i % 2 == 0).map(i -> i * i).sum();
    Map<Integer, List<String>> groups =
        Stream.of("a", "bb", "cc").collect(Collectors.groupingBy(String::length));
    List<String> sorted =
        counts.entrySet().stream()
            .sorted(Map.Entry.<String, Integer>comparingByValue().reversed())
            .map(e -> e.getKey() + "=" + e.getValue())
            .collect(Collectors.toList());
    double mean = numbers.stream().mapToInt(Integer::intValue).average().orElse(0.0);
    Set<Integer> unique = numbers.stream().distinct().collect(Collectors.toSet());
    String chars = "abc".chars().mapToObj(c -> (char) c).map(String::valueOf)
        .reduce("", (a, b) -> b + a);
    Matcher matcher = Pattern.compile("(\\d+)-(\\w*)").matcher("12-ab 34-cd");
    while (matcher.find()) {
      sorted.add(matcher.group(1) + matcher.replaceAll("$2"));
    }
    byte[] digest = MessageDigest.getInstance("MD5").digest("text".getBytes());
    String hex = new BigInteger(1, digest).pow(2).mod(BigInteger.TEN.shiftLeft(70)).toString(16);
    StringBuilder text = new StringBuilder(String.format("%d %.2f %s %5s %x", 1, 2.5, "s", 'c', 7));
    text.append(hex).reverse().insert(0, joined).append(sum).append(mean).append(chars);
    Object[] others = {
      Optional.of(1).map(x -> x + 1).get(), List.of(1, 2, 3), Map.of("k", 1), Set.of(1),
      new ConcurrentHashMap<>(groups), Arrays.asList(1, 2).equals(List.of(1, 2)), unique,
      Arrays.toString(new int[] {3, 1, 2}), Arrays.stream(new int[] {3, 1}).boxed().toArray(),
      Math.floorMod(-7, 3) + Math.round(2.5) + Math.sqrt(2) + Math.pow(2, 0.5),
      Integer.parseInt("12") + Integer.toBinaryString(12) + Double.parseDouble("1.5"),
      "a,b".replace(',', ';').replaceAll("[a-z]", "x").trim().toUpperCase(), new Random(42),
      String.join("-", List.of("a", "b")), Objects.hash(1, 2), new Square(2).area(), letters,
    };
    BiFunction<Integer, Integer, Integer> add = (a, b) -> a + b;
    Supplier<List<Object>> supplier = () -> new ArrayList<>(Arrays.asList(others));
    supplier.get().add(add.andThen(x -> x * 2).apply(1, 2));
    int[] array = {3, 1, 2};
    Arrays.sort(array);
    Integer[] boxed = {3, 1, 2};
    Arrays.sort(boxed, Collections.reverseOrder());
    System.out.println(text);
    System.out.printf("%s %d%n", text, numbers.size());
    try {
      throw new AssertionError();
    } catch (AssertionError error) {
      error.printStackTrace();
    }
    try {
      Integer.parseInt(numbers.get(7) + "x");
    } catch (NumberFormatException | IndexOutOfBoundsException error) {
      error.printStackTrace();
    }
  }
}
