import { z } from "zod";
import { serialize, type Step, TAG_TOKENS } from "../tags/index.ts";
import { generatedTask } from "./generated.ts";
import { FORMS, stateAnswer } from "./grading.ts";
import { selfChecks } from "./tagged-rates.ts";
import type { Problem, TaskDefinition } from "./types.ts";
import { Draw, type Story, tell, wordProblemVocabulary } from "./wordproblems.ts";

const share = z.number().min(0).max(1);

/**
 * The word problems, solved with functional tokens: a demonstration is a path of grammar G2. After a share of its steps it checks them; half of what
 * is checked is wrong, by the slips of a small model, and is then done again. Whether a step is checked depends on nothing, and a wrong value is as long
 * as the right one, so that only the content of a step says whether it is right.
 */
export const taggedOptions = z.strictObject({
  name: z.string(),
  seed: z.int().nonnegative().optional(),
  /** How many steps a problem takes; drawn from these, all equally often. */
  levels: z.array(z.int().min(1).max(3)).min(1).default([1, 2, 3]),
  /** This many training problems, all of them demonstrated; endless when absent. */
  demonstrations: z.int().positive().optional(),
  /** No value along the way is larger. */
  max: z.int().min(20).max(999).default(60),
  /** Share of working blocks that a `verify` follows. */
  verify: share.default(0.5),
  /** Share of these that find the block right. */
  affirm: share.default(0.5),
});

export type TaggedOptions = z.infer<typeof taggedOptions>;

/** An equation of the working. */
interface Line {
  object: string;
  a: number;
  operator: string;
  b: number;
  value: number;
}

const equation = ({ a, operator, b, value }: Line) => `${a} ${operator} ${b} = ${value}`;
const written = (line: Line) => `${line.object}: ${equation(line)}.`;

function linesOf({ lines }: Story): Line[] {
  return lines.map((line) => {
    const [, object, a, operator, b, value] = /^(\w+): (\d+) (.) (\d+) = (\d+)\.$/.exec(line) ?? [];
    return { object, a: Number(a), operator, b: Number(b), value: Number(value) };
  });
}

const operations: Record<string, (a: number, b: number) => number> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
};

/** The line with a slip of a small model: another operation, another number of the problem, or a value that is a little off. It has as many digits as the line. */
function slip(line: Line, numbers: readonly number[], draw: Draw): Line {
  const result = (operator: string, b: number) => operations[operator](line.a, b);
  const other = (operator: string, b: number): Line => ({ ...line, operator, b, value: result(operator, b) });
  const candidates = [
    ...["+", "-", "*", "/"].map((operator) => other(operator, line.b)),
    ...numbers.map((b) => other(line.operator, b)),
  ];
  const digits = (n: number) => String(n).length;
  const alike = candidates.filter(
    ({ b, value }) =>
      Number.isInteger(value) &&
      value > 0 &&
      value !== line.value &&
      digits(value) === digits(line.value) &&
      digits(b) === digits(line.b),
  );
  const off = [1, 2, 10, -1, -2, -10]
    .map((by) => ({ ...line, value: line.value + by }))
    .filter(({ value }) => value > 0 && digits(value) === digits(line.value));
  // Half of the slips are in the arithmetic, half in what is calculated, where there is such a one.
  return draw.pick(alike.length > 0 && draw.chance() < 0.5 ? alike : off);
}

/** Working blocks: single steps, and perhaps the rest of the solution in one go. */
function blocksOf(lines: Line[], draw: Draw): Line[][] {
  const single = draw.chance() < 0.5 ? lines.length : draw.between(0, lines.length - 1);
  const blocks = lines.slice(0, single).map((line) => [line]);
  return single < lines.length ? [...blocks, lines.slice(single)] : blocks;
}

interface Path {
  steps: Step[];
  /** Positions of blocks that are wrong. */
  wrong: number[];
}

export function pathOf(story: Story, options: TaggedOptions, draw: Draw): Path {
  const lines = linesOf(story);
  const numbers = [...new Set(story.sentences.join(" ").match(/\d+/g)?.map(Number))];
  const steps: Step[] = [];
  const wrong: number[] = [];
  const blocks = blocksOf(lines, draw);
  // The grammar has no direct_answer at the beginning.
  const opening = draw.between(0, 3);
  if (opening < 2) steps.push({ fn: "clarify", text: story.question });
  if (opening === 1 || opening === 2) {
    const plan = lines.map(({ operator, b }) => ` ${operator} ${b}`).join("");
    steps.push({ fn: "analysis", text: `${lines[0].a}${plan}.` });
  }
  for (const [at, block] of blocks.entries()) {
    const last = steps.at(-1)?.fn;
    const whole = block.length > 1 || (at === blocks.length - 1 && at > 0 && draw.chance() < 0.3);
    const asks = last !== "subquestion" && (draw.chance() < 0.2 || (whole && last === undefined));
    if (asks) steps.push({ fn: "subquestion", text: `${block[0].a} ${block[0].operator} ${block[0].b}?` });
    const fn = whole ? "direct_answer" : "next_step";
    const checked = draw.chance() < options.verify;
    const right = !checked || draw.chance() < options.affirm;
    if (right) {
      steps.push({ fn, text: block.map(written).join("\n") });
      if (checked) steps.push({ fn: "verify", text: `${equation(block[block.length - 1])}, right.` });
      continue;
    }
    const { place, lines: flawed } = spoil(block, numbers, draw);
    wrong.push(steps.length);
    steps.push({ fn, text: flawed.map(written).join("\n") });
    steps.push({ fn: "verify", text: `${equation(block[place])}, not ${equation(flawed[place])}.` });
    steps.push({ fn: "refine", text: block.slice(place).map(written).join("\n") });
  }
  steps.push({ fn: "output", text: stateAnswer("boxed", String(lines[lines.length - 1].value)) });
  return { steps, wrong };
}

/** A block with a slip in one line, after which it goes on from the wrong value, as long as the block; where that cannot be, in the last line. */
function spoil(block: Line[], numbers: readonly number[], draw: Draw): { place: number; lines: Line[] } {
  const place = draw.between(0, block.length - 1);
  const lines = [...block.slice(0, place), slip(block[place], numbers, draw)];
  for (const line of block.slice(place + 1)) {
    const a = lines[lines.length - 1].value;
    lines.push({ ...line, a, value: operations[line.operator](a, line.b) });
  }
  const like = lines.every(
    (line, i) => Number.isInteger(line.value) && line.value > 0 && written(line).length === written(block[i]).length,
  );
  if (like) return { place, lines };
  const last = block.length - 1;
  return { place: last, lines: [...block.slice(0, last), slip(block[last], numbers, draw)] };
}

function taggedProblem(id: string, key: string, options: TaggedOptions): Problem {
  const draw = new Draw(key, options.max);
  const level = draw.pick(options.levels);
  const story = tell(level, draw);
  const text = [...story.sentences, story.question].join(" ");
  const { steps, wrong } = pathOf(story, options, draw);
  const before = (step: number) => serialize(steps.slice(0, step), "tokens").length;
  return {
    id,
    prompt: { text: `${text}\n` },
    demonstrations: [serialize(steps, "tokens")],
    masks: [wrong.map((at) => [before(at), before(at + 1)])],
    answer: String(story.values[story.values.length - 1]),
    question: text,
    tags: { level: String(level) },
    data: { text, wrong, lines: linesOf(story).map(written) },
  };
}

export function tagged(options: TaggedOptions, runSeed: number): TaskDefinition {
  const task = generatedTask({
    name: "tagged",
    seed: options.seed ?? runSeed,
    limit: options.demonstrations,
    make: (id, key) => taggedProblem(id, key, options),
    prompt: "text",
    grading: { strict: [...FORMS.math.strict] },
  });
  const rates = ({ data }: Problem, response: string) =>
    selfChecks(Array.isArray(data?.lines) ? data.lines.map(String) : [], response);
  return { ...task, vocabulary: taggedVocabulary(), rates };
}

/** The words of prompts and blocks, and the tags, which a model has as words of its own where they are no tokens of its vocabulary. */
export function taggedVocabulary(): string[] {
  return [...wordProblemVocabulary(), "How", "?", ", right.", ", not ", "\\boxed{", "}", ...TAG_TOKENS];
}
