import { describe, expect, test } from "vitest";
import { comparisonHtml, reportHtml } from "./html.ts";
import { answerText, mathText, plainText } from "./html-text.ts";
import type { EvaluationReport, Measure } from "./report.ts";
import type { Comparison } from "./compare.ts";

const measure = (rest: Partial<Measure>): Measure => ({
  name: "accuracy",
  grading: "strict",
  value: 0.5,
  low: 0.25,
  high: 0.75,
  method: "bootstrap",
  ...rest,
});

const report = (rest: Partial<EvaluationReport> = {}): EvaluationReport => ({
  model: "models/a",
  task: "math-500",
  split: "test",
  prompt: "chat",
  mode: "math",
  strict: ["boxed"],
  flexible: ["auto"],
  n: 1,
  temperature: 0,
  maxTokens: 512,
  seed: 0,
  problems: 1,
  samples: 1,
  accuracy: 0.5,
  interval: { low: 0.25, high: 0.75 },
  reward: 0.5,
  truncationRate: 0,
  tokensPerProblem: 3,
  unsure: { strict: 0, flexible: 0 },
  gradeErrors: 0,
  measures: [measure({}), measure({ grading: "flexible" })],
  groups: [],
  ...rest,
});

/** Element names that a browser would make of this. */
const elements = (html: string) => [...html.matchAll(/<([a-zA-Z!/][^\s>]*)/g)].map(([, name]) => name);

const hostile = [
  "</script><script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "</div></details><iframe src=//evil.example>",
  "$<img src=x onerror=alert(1)>$",
  "\\(\\href{javascript:alert(1)}{x}\\)",
  "$\\includegraphics{http://evil.example/a.png}$",
  "\\[\\text{</math><script>alert(1)</script>}\\]",
  '$\\class{"><script>alert(1)</script>}{x}$',
  "\\boxed{<svg onload=alert(1)>}",
  "&lt;script&gt; \"quotes' ` ${x}",
];

describe("the head of a page", () => {
  test("whatever names hold stays text", () => {
    const side = (name: string): Comparison["a"] => ({
      name,
      accuracy: { value: 0.5, low: 0.25, high: 0.75, method: "wilson" },
    });
    const compared = (text: string): Comparison => ({
      a: side(text),
      b: side(text),
      grading: "strict",
      problems: 4,
      difference: 0,
      interval: { low: -0.5, high: 0.5 },
      test: { name: "McNemar", aBetter: 1, bBetter: 1, p: 1 },
      sentence: text,
      notes: [],
      flips: [],
    });
    for (const text of hostile) {
      const groups = [{ tag: text, value: text, problems: 9, measures: [measure({ value: 1 / 3 })] }];
      const named = (name: string) => reportHtml(report({ model: name, task: name, prompt: name, groups }));
      const plain = reportHtml(report({ groups: [{ ...groups[0], tag: "level", value: "3" }] }));
      expect(elements(named(text)), text).toEqual(elements(plain));
      expect(elements(comparisonHtml(compared(text))), text).toEqual(elements(comparisonHtml(compared("a"))));
    }
  });

  test("every measure stands with its interval, and curves where there are several samples", () => {
    const measures = [1, 4].flatMap((k) => [
      measure({ name: "pass@k", k, value: 0.4 + k / 100, low: 0.3, high: 0.6 }),
      measure({ name: "maj@k", k, value: 0.2, low: 0.1, high: 0.3 }),
    ]);
    const tokens = measure({ name: "tokens", grading: undefined, value: 120, low: 90, high: 150 });
    const groups = [{ tag: "level", value: "3", problems: 9, measures: [measure({ value: 1 / 3 })] }];
    const head = reportHtml(report({ n: 4, measures: [measure({}), ...measures, tokens], groups }));
    expect(head).toContain("pass@4</th><td>44.0 % <small>[30.0, 60.0]</small>");
    expect(head).toContain("tokens a problem</th><td>120 <small>[90, 150]</small>");
    expect(head.match(/<polyline/g)).toHaveLength(2);
    expect(head).toContain("<title>3 (9): 33.3 % [25.0, 75.0]</title>");
  });
});

describe("text with formulas", () => {
  test("formulas become MathML, their source stays beside them", () => {
    expect(mathText("so $\\frac{1}{2}$.")).toMatch(
      /^so <span class="formula"><math>.*<mfrac>.*<\/math><code>\$\\frac\{1\}\{2\}\$<\/code><\/span>\.$/,
    );
    for (const text of ["\\(x^2\\)", "\\[x^2\\]", "$$x^2$$", "\\boxed{\\frac{1}{2}}"])
      expect(mathText(text)).toContain("<math");
    expect(answerText("\\frac{1}{2}")).toContain("<mfrac>");
    expect(answerText("3/4")).toBe("3/4");
  });

  test("prices, lone dollars, broken and unclosed TeX stay text", () => {
    for (const text of ["$5 and $6", "from $5-$6", "costs $3.", "$\\frac{1$", "\\boxed{1", "$$", "\\(x"]) {
      expect(mathText(text)).toBe(plainText(text));
    }
  });

  test("characters that hide or turn text around are named", () => {
    expect(plainText("a\u202eb\u0000\n")).toBe(
      'a<span class="hidden">U+202E</span>b<span class="hidden">U+0000</span>\n',
    );
    expect(mathText("$x\u202e$")).toContain("U+202E");
  });

  test("long hostile input is cheap", () => {
    for (const text of [
      "\\boxed{".repeat(3000),
      "$ x".repeat(10_000),
      "\\[".repeat(10_000),
      "{".repeat(20_000),
      "$\\def\\a{\\a\\a}\\a$",
    ]) {
      expect(mathText(text)).not.toContain("<math");
    }
  });
});
