"""Programs in languages of which a machine may have no sources."""

_JAVA = """import java.util.*;

/** A cache. */
public class Cache<K extends Comparable<K>, V> implements Iterable<Map.Entry<K, V>> {
    private final Map<K, List<V>> values = new HashMap<>();
    private static final char[] SIGNS = {'a', '\\'', '"', '\\n', ' '};
    private int hits = 0, misses = -1;

    @Override
    public Iterator<Map.Entry<K, V>> iterator() {
        return null;
    }

    @SuppressWarnings("unchecked")
    public V get(K key, int... more) throws IllegalStateException {
        label:
        for (int i = 0; i < more.length; i++) {
            if (more[i] >>> 2 > 3 && !(key == null)) {
                continue label;
            } else if (more[i] == 'x') {
                break;
            }
        }
        do { hits--; } while (hits > 0);
        Runnable r = () -> System.out.println("a \\"b\\" {c}\\t" + hits + 1.5e-3f + 0x1FL);
        values.computeIfAbsent(key, k -> new ArrayList<>()).forEach(System.out::println);
        try (Scanner in = new Scanner(System.in)) {
            return hits > misses ? (V) values.get(key).get(0) : null;
        } catch (RuntimeException | Error e) {
            throw new IllegalStateException("no ' value", e);
        } finally {
            synchronized (this) { hits += 1; }
        }
    }

    enum Color { RED, GREEN { int f() { return 1; } }; int f() { return 0; } }

    static int pick(Object o) {
        switch (o.hashCode() % 3) {
            case 0: return 1;
            case 1: { return 2; }
            default: return ~3;
        }
    }

    int block() {
        int[][] table = new int[][] {{1, 2}, {3, 4}};
        String text = \"\"\"
            Hello "you"
              there\\tand here
            \"\"\";
        return table[0][1] + (int) 'c' + text.length();
    }
}
"""

_CSHARP = """using System;
using System.Collections.Generic;

namespace Shop.Things
{
    [Serializable]
    public sealed class Basket<T> : List<T>, IDisposable where T : class, new()
    {
        public string Name { get; private set; } = "a \\"b\\" {c}";
        private readonly Dictionary<string, List<int?>> map = new();
        public event EventHandler<EventArgs> Changed;

        public int this[int i] => map["x"][i] ?? -1;

        public static bool operator ==(Basket<T> a, Basket<T> b) => a?.Name == b?.Name;
        public static bool operator !=(Basket<T> a, Basket<T> b) => !(a == b);

        public async Task<int> Count(ref int x, out int y, params string[] rest)
        {
            y = 0;
            foreach (var item in this) { if (item is null) continue; y++; }
            var path = @"c:\\temp\\""quoted"" file";
            var text = $"{Name} has {y + 1} of {{x}} and {rest.Length:N2}";
            for (int i = 0; i < 10 && y-- > 0; ++i) { x <<= 1; }
            switch (x)
            {
                case 1: return await Task.FromResult(1);
                case 2 when y > 3: goto default;
                default: break;
            }
            char c = '\\'', d = ' ', e = '\\n';
            try { lock (this) { x = checked(x * 2); } }
            catch (Exception error) when (error.Message.Length > 0) { throw; }
            finally { Dispose(); }
            Func<int, int> twice = n => { return n * 2; };
            return twice(x) + (int)1.5 + 0x1F + 10_000;
        }

        public void Dispose() { }
    }

    enum Color { Red = 1, Green }
    struct Point { public int X, Y; }
}
"""

_PHP = """<?php
namespace App\\Models;

use App\\Base\\{Thing, Other as Else_};

/** A basket. */
abstract class Basket extends Thing implements \\Countable
{
    use Sharing;
    const LIMIT = 10;
    protected ?array $items = ['a' => 1, "b" => [2, 3]];

    public function __construct(private int $size = self::LIMIT, string ...$rest)
    {
        foreach ($rest as $key => $value) {
            $this->items[$key] = (int) $value <=> 2;
        }
        for ($i = 0; $i < $size; $i++) { echo "item {$this->items['a']} of $size\\n"; }
        $f = function ($x) use (&$size) { return $x ** 2 . 'it\\'s'; };
        $g = fn($x) => $x ?? -1;
        if (!isset($this->items["b"]) && $size !== 3 || @$f(1)) {
            throw new \\RuntimeException('no ' . \\strlen("x") . " \\$1");
        } elseif ($size instanceof Thing) {
            return;
        } else {
            static::make()?->run($g);
        }
        $text = <<<EOT
  Dear $size,
    you have {$this->items['a']}.
  EOT;
        $raw = <<<'RAW'
it's raw $x
RAW;
        switch ($size) { case 1: break; default: print $text . $raw; }
        while (--$size > 0): $$f = &$g; endwhile;
        $b = match (true) { $size > 1, $size < 0 => 'x', default => 'y' };
    }

    abstract protected function count(): int;
}

function add(int|float $a, $b = null): ?int { return $a ? $a : ($b ?: ~0); }
"""

_C = """#include <stdio.h>
#include "local/file.h"
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define NAME (1 + 2)
#define LONG(x) do { \\
    f(x); \\
  } while (0)
#ifdef DEBUG
#define LOG 1
#else
#define LOG 0
#endif

struct node { int value : 3; struct node *next; };
typedef int (*callback)(const char *, ...);
static const char *names[] = {"a b", "c\\n", "it's \\"x\\"", ""};

int main(int argc, char **argv) {
    unsigned long n = 0xFFul, m = sizeof(struct node);
    for (int i = 0, j = 10; i < j; i++, --j) { n += i * -j; *(&n) = n & ~m; }
    if (argc - -1 > 2 && !argv[1]) goto out;
    switch (n) { case 'a': case '\\\\': n = n ? 1 : 2; break; default: n--; }
    printf("%lu %s\\n", n, names[0]);
    do { n >>= 1; } while (n);
out:
    return (int) MAX(n, m);
}
"""

_CPP = """#include <vector>
namespace a { namespace b {
template <typename T, int N = 3>
class Stack : public std::vector<std::vector<T>>, private Base {
public:
    explicit Stack(const T& x) : Base(x), size_{N} { push(x); }
    virtual ~Stack() = default;
    virtual void f() const = 0;
    T& operator[](int i) { return data_[i]; }
    bool operator<(const Stack& o) const noexcept { return size_ < o.size_; }
private:
    int size_;
    T* data_ = nullptr;
};
auto g(int x) -> int {
    auto h = [&x, y = 1](auto z) mutable { return x + y - -z; };
    const char* s = R"xx(raw "text" \\n here)xx";
    wchar_t c = L'\\'';
    for (auto& p : {1, 2, 3}) { std::cout << "a\\tb" << p << std::endl; }
    try { throw std::runtime_error("x"); } catch (...) { return h(1'000'000); }
    return x < 3 ? static_cast<int>(2.5e3f) : ::a::b::z;
}
}}
"""

_JS = """import { a, b as c } from './x.js';
export default class Foo extends Bar {
  #secret = 1;
  static get name() { return `a ${b + `c ${d}`} \\` e
next`; }
  async *run({ x = 1, ...rest }, [y] = []) {
    for await (const z of rest) { yield* z?.w ?? -x; }
    label: while (true) { if (x in rest) continue label; else break }
    const re = /[/"']+\\/(?:a b)/gi, q = x / y / 2;
    return x => ({ a: 1, 'b c': [..."x"], [y]: async () => { await q }, get z() { return 1 } })
  }
}
let n = 0
let m = n++
if (!m) { n = -m }
const f = function () { return typeof n === 'undefined' ? void 0 : delete n.x }
do { m-- } while (m > 0)
switch (n) { case 1: f(); break; default: throw new Error("it's") }
try { f() } catch { n = 1 } finally { m = 2 }
"""

WRITTEN = {
    "Java": [_JAVA], "C#": [_CSHARP], "PHP": [_PHP], "C": [_C], "C++": [_CPP], "JavaScript": [_JS],
}  # fmt: skip
