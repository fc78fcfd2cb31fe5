import { join } from "node:path";
import { expect, test } from "vitest";
import { fixture } from "../../test/local.ts";
import { compareEvaluations } from "../eval/compare.ts";
import { type EvaluationSettings, reportOf } from "../eval/report.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import { makeReader } from "./client/reader.ts";
import { comparisonView, evaluationView } from "./evaluation.ts";
import { type View, viewPage } from "./page.ts";

const settings: EvaluationSettings = { task: "t", mode: "math", strict: ["boxed"], flexible: ["auto"], n: 1 };
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
  reward: 1,
  parts: {},
  solved: true,
  ...rest,
});
const different = { verdict: "different" as const, rule: "number", reason: "" };

/** The trees of a view's first block, as its page reads them. */
async function trees(view: View) {
  const page = viewPage(view);
  const read = (id: string) => ({ textContent: new RegExp(`id="${id}">([^<]*)<`).exec(page)?.[1] ?? null });
  return makeReader({ getElementById: read } as unknown as Document).texts(0);
}

test("an evaluation: its report, and each sample with its verdicts and formulas", async () => {
  const samples = [
    sample(),
    sample({
      problem: "p2",
      question: "plain",
      text: "5",
      strict: different,
      solved: false,
      reward: 0,
      stop: "length",
    }),
  ];
  const view = await evaluationView(reportOf(settings, samples), samples);
  expect(view.notes).toEqual([
    "texts are shown whole, not token by token: no record beside the samples names their model",
  ]);
  expect(view.report).toContain("<td>50.0 % <small>");
  const [first, second] = await trees(view);
  expect(first.segments[1]).toMatchObject({
    text: "It is \\boxed{2}.",
    strict: sample().strict,
    pieces: ["It is \\boxed{2}.", "", ""],
  });
  expect(first.segments[1].html).toContain("<math");
  expect(second.segments[1]).toMatchObject({ text: "5", stop: "length", strict: different });
  expect(second.segments[1].html).toBeUndefined();
  expect(view.head.problems.map(({ html }) => html?.includes("<math"))).toEqual([true, undefined]);
});

test("with the model's tokenizer token by token, the one that ended the sample too", async () => {
  const samples = [sample({ text: "", tokens: [65, 66, 0] })];
  const view = await evaluationView(reportOf({ ...settings, model: fixture("llama") }, samples), samples);
  expect(view.notes).toEqual([]);
  expect(view.head.pieces[0][0]).toEqual([65, 66, 0]);
  expect((await trees(view))[0].segments[1].pieces).toBeUndefined();
  const gone = await evaluationView(reportOf({ ...settings, model: join(fixture("llama"), "none") }, samples), samples);
  expect(gone.notes[0]).toMatch(/the model .*none is not here$/);
});

test("two evaluations: the problems in common, which side does better, what is left out", async () => {
  const right = (problem: string, yes: boolean) =>
    sample({ problem, ...(yes ? {} : { strict: different, solved: false, reward: 0 }) });
  const a = {
    name: "a",
    settings,
    samples: [right("p1", true), right("p2", false), right("p3", true), right("p4", true)],
  };
  const b = { name: "b", settings, samples: [right("p1", false), right("p2", true), right("p3", true)] };
  const view = await comparisonView(a, b, compareEvaluations(a, b, { grading: "strict", allow: [] }));
  const { columns, head } = view;
  expect(head.problems.map(({ id }) => id)).toEqual(["p1", "p2", "p3"]);
  expect(Array.from(columns.flip)).toEqual([1, 1, 1, 2, 2, 2, 0, 0, 0]);
  expect(Array.from(columns.side)).toEqual([0, 0, 1, 0, 0, 1, 0, 0, 1]);
  expect(Array.from(columns.number.filter((_, i) => columns.kind[i] === 1))).toEqual([0, 0, 0, 0, 0, 0]);
  expect(view.notes).toContain("a: 1 of 4 problems left out, the others did not answer them");
});

test("only the page's own script may run, and nothing is fetched", async () => {
  const page = viewPage(await evaluationView(reportOf(settings, [sample()]), [sample()]));
  const policy = /Content-Security-Policy" content="([^"]*)"/.exec(page)?.[1];
  expect(policy).toMatch(/^default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='$/);
});

test("a question that was answered in rounds: each response beneath the one that caused it, with what it was handed", async () => {
  const round = (text: string, progress?: string) => ({ prompt: 9, progress, text, tokens: [1, 2], logprobs: [-1, -2], stop: "eos" as const, strict: different }); // prettier-ignore
  const samples = [
    sample({ rounds: [round("one"), round("two", "p1")], progress: "p2" }),
    sample({ sample: 1, rounds: [], text: "at once" }),
  ];
  const view = await evaluationView(reportOf({ ...settings, n: 2 }, samples), samples);
  const [first, second, third, ...none] = await trees(view);
  expect(none).toEqual([]);
  expect(first.segments.map(({ text }) => text)).toEqual(["", "one", "at once"]);
  expect([second.cause, third.cause]).toEqual([
    { tree: "p1", segment: 1 },
    { tree: "p1.1", segment: 1 },
  ]);
  expect([second, third].map(({ segments }) => segments.map(({ text }) => text))).toEqual([["p1", "two"], ["p2", "It is \\boxed{2}."]]); // prettier-ignore
  // Only the last response of a sample has its reward.
  const rewards = [first.segments[1], first.segments[2], second.segments[1], third.segments[1]];
  expect(rewards.map(({ outcome }) => outcome?.reward)).toEqual([undefined, 1, undefined, 1]);
  const { kind, depth } = view.columns;
  expect(Array.from(kind)).toEqual([0, 1, 1, 1, 1]);
  expect(Array.from(depth)).toEqual([0, 1, 2, 3, 1]);
});
