import fc from "fast-check";

// Inputs that ask for too much, for tests of the step budget.

const nest = (open: string, inside: string, close: string, times: number): string =>
  open.repeat(times) + inside + close.repeat(times);
const join = (count: number, item: (i: number) => string, by: string): string =>
  Array.from({ length: count }, (_, i) => item(i)).join(by);

/** Answers that are long, deep or huge, each at most about 20 kB. */
export const HOSTILE: readonly string[] = [
  nest("2^{", "2", "}", 100),
  `2${"^2".repeat(9000)}`,
  "9^9^9^9^9",
  "(10^9)!",
  `5${"!".repeat(5000)}`,
  join(1000, () => "399!", String.raw`\cdot `),
  "{".repeat(10_000),
  "(".repeat(10_000),
  nest(String.raw`\sqrt{`, "2", "}", 2500),
  nest(String.raw`\sqrt{1+`, "2", "}", 100),
  String.raw`\sqrt `.repeat(3000),
  nest(String.raw`\frac{1}{`, "2", "}", 2000),
  "(x+1)^{1000000}",
  "x^{99999999999999}",
  join(400, (i) => `(x+${i})`, ""),
  join(100, (i) => `(a_{${i}}+b_{${i}})`, ""),
  "(x+y+z+1)".repeat(200),
  "7".repeat(20_000),
  join(16, () => "7".repeat(1190), String.raw`\cdot `),
  `0.${"3".repeat(15_000)}`,
  "1e99999",
  "1e-99999",
  "123456789^{400}",
  join(1500, (i) => String.raw`\frac{1}{${i + 2}}`, "+"),
  join(400, (i) => String.raw`\frac{1}{x+${i + 2}}`, "+"),
  join(4000, (i) => `${i}`, ", "),
  join(2000, (i) => `x+${i}`, ", "),
  String.raw`\pm 1`.repeat(4000),
  String.raw`(1\pm 2)`.repeat(2000),
  "1,".repeat(10_000),
  " ".repeat(20_000),
  "word ".repeat(4000),
  "\\".repeat(20_000),
  nest(String.raw`\text{`, "a", "}", 2500),
  `${String.raw`\sin`.repeat(4000)} x`,
  `${"-".repeat(20_000)}1`,
  "|".repeat(10_000),
  nest("|x+", "1", "|", 2500),
  String.raw`\frac12`.repeat(2800),
  String.raw`2\frac13`.repeat(2000),
  String.raw`\begin{pmatrix}${"1&".repeat(9000)}1\end{pmatrix}`,
  String.raw`\begin{pmatrix}`.repeat(1300),
  `x${"^".repeat(19_000)}`,
  `x${"_".repeat(19_000)}`,
  `x${"'".repeat(19_000)}`,
  `${"x=".repeat(9999)}1`,
  `${"x<".repeat(9999)}1`,
  `${String.raw`(1,2)\cup`.repeat(2200)}(3,4)`,
  String.raw`\{x|`.repeat(4000),
  nest("{", "a", "|b}", 100),
  String.raw`\binom{1000000000}{500000000}`,
  String.raw`\sqrt[1000000007]{2}`,
  join(500, (i) => String.raw`\sqrt{${i * i * i + 7}}`, "+"),
  join(60, (i) => String.raw`(1+\sqrt{${i + 2}})`, ""),
  join(500, (i) => String.raw`\ln ${i + 2}`, "+"),
  `${"1:".repeat(9999)}2`,
  `5 ${"cm ".repeat(6000)}`,
  "x".repeat(19_000),
  "x y ".repeat(5000),
  "f(".repeat(9000),
  "(a+b+c+d)^{60}",
  "((((((x+1)^9+1)^9+1)^9+1)^9+1)^9)",
  "(1+i)^{100000}",
  String.raw`(\sqrt2+\sqrt3)^{300}`,
  String.raw`(\sqrt{x+1}+1)^{200}`,
  "½".repeat(19_000),
  `x${"²".repeat(19_000)}`,
  `${"F".repeat(19_000)}_{16}`,
  ".".repeat(19_000),
  `1${"/2".repeat(9000)}`,
  `x${"/(x+1)".repeat(2000)}`,
  join(3000, (i) => `x_{${i}}`, "+"),
];

const PIECES =
  String.raw`\frac{|}{|\sqrt{|}|{|(|)|[|]|\{|\}|^|_|^{|+|-|*|/|=|<|\le |,|;|!|%|\%|$|\$|.|:|\pm |x|y|n|i|e|\pi |\infty |\sin |\ln |\log_2 |sqrt|pi|\text{|\mathrm{cm}|cm|and|or|1|2|10|0.5|1,000|999999999|1e9|\cup |\in |\begin{pmatrix}|\end{pmatrix}|&|\\|\left(|\right)|\binom{5}{2}|\lfloor |\rfloor |^\circ|\overline{3}|\mid |√|²|½|≤|−|'`.split(
    "|",
  );

/** Answers made of pieces of mathematics in any order, some repeated very often, and any text. */
export const hostileAnswer: fc.Arbitrary<string> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.array(fc.constantFrom(...PIECES, "|"), { maxLength: 60 }).map((pieces) => pieces.join("")),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(
        fc.array(fc.constantFrom(...PIECES, "|"), { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 3000 }),
      )
      .map(([pieces, times]) => pieces.join("").repeat(times).slice(0, 20_000)),
  },
  { weight: 1, arbitrary: fc.string({ maxLength: 200, unit: "grapheme" }) },
  { weight: 1, arbitrary: fc.constantFrom(...HOSTILE) },
);
