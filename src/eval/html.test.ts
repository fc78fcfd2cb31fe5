import { describe, expect, test } from "vitest";
import { evaluationPage } from "./html.ts";
import { SCRIPT } from "./html-assets.ts";
import { answerText, mathText, plainText } from "./html-text.ts";
import type { EvaluationReport, Measure } from "./report.ts";
import type { EvaluatedSample } from "./samples.ts";

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

const sample = (rest: Partial<EvaluatedSample> = {}): EvaluatedSample => ({
  problem: "p1",
  sample: 0,
  question: "What is $1+1$?",
  gold: "2",
  text: "It is \\boxed{2}.",
  tokens: [1, 2, 3],
  logprobs: [-0.1, -0.2, -0.3],
  stop: "eos",
  strict: { answer: "2", strategy: "boxed", verdict: "equal", rule: "number", reason: "both are 2" },
  flexible: { answer: "2", strategy: "boxed", verdict: "equal", rule: "number", reason: "both are 2" },
  reward: 1,
  parts: {},
  solved: true,
  ...rest,
});

/** Element names that a browser would make of a page, its own script and style left out. */
function elements(page: string): Set<string> {
  const own = page.replace(`<script>${SCRIPT}</script>`, "").replace(/<style>[^]*?<\/style>/, "");
  return new Set([...own.matchAll(/<([a-zA-Z!/][^\s>]*)/g)].map(([, name]) => name.replace("/", "").toLowerCase()));
}

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

describe("the page", () => {
  test("whatever a model or a data set wrote stays text", () => {
    const safe = elements(
      evaluationPage(report(), [sample({ text: "$\\text{a}<\\frac{1}{2}>b$", question: "\\[x\\]" })]),
    );
    for (const text of hostile) {
      const grade = { ...sample().strict, answer: text, rule: text, reason: text };
      const page = evaluationPage(report({ model: text, task: text, prompt: text }), [
        sample({
          problem: text,
          question: text,
          gold: text,
          options: [text],
          tags: { [text]: text },
          text,
          error: text,
          strict: grade,
          flexible: grade,
        }),
      ]);
      const made = [...elements(page)].filter((name) => !safe.has(name) && !/^m[a-z]+$/.test(name));
      expect(made, text).toEqual([]);
      expect(page.match(/<script/g), text).toHaveLength(1);
      for (const [tag] of page.matchAll(/<[a-z][^>]*>/g)) expect(tag, text).not.toMatch(/\s(on\w+|src|href)\s*=/i);
    }
  });

  test("only the page's own script may run, and nothing is fetched", () => {
    const page = evaluationPage(report(), [sample()]);
    const policy = /Content-Security-Policy" content="([^"]*)"/.exec(page)?.[1];
    expect(policy).toMatch(/^default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='$/);
    expect(page).not.toMatch(/https?:/);
  });

  test("every measure stands with its interval, and curves where there are several samples", () => {
    const measures = [1, 4].flatMap((k) => [
      measure({ name: "pass@k", k, value: 0.4 + k / 100, low: 0.3, high: 0.6 }),
      measure({ name: "maj@k", k, value: 0.2, low: 0.1, high: 0.3 }),
    ]);
    const page = evaluationPage(
      report({
        n: 4,
        measures: [
          measure({}),
          ...measures,
          measure({ name: "tokens", grading: undefined, value: 120, low: 90, high: 150 }),
        ],
        groups: [{ tag: "level", value: "3", problems: 9, measures: [measure({ value: 1 / 3 })] }],
      }),
      [sample()],
    );
    expect(page).toContain("pass@4</th><td>44.0 % <small>[30.0, 60.0]</small>");
    expect(page).toContain("tokens a problem</th><td>120 <small>[90, 150]</small>");
    expect(page.match(/<polyline/g)).toHaveLength(2);
    expect(page).toContain("<title>3 (9): 33.3 % [25.0, 75.0]</title>");
  });

  test("problems carry what the filter asks for", () => {
    const wrong = { ...sample().strict, verdict: "different" as const };
    const page = evaluationPage(report(), [
      sample({ problem: "mixed" }),
      sample({ problem: "mixed", sample: 1, strict: wrong, stop: "length" }),
      sample({ problem: "none", strict: wrong, flexible: { ...wrong, verdict: "unsure" }, error: "late" }),
    ]);
    expect([...page.matchAll(/data-marks="([^"]*)"/g)].map(([, marks]) => marks)).toEqual([
      "mixed format cut",
      "none format unsure error",
    ]);
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
