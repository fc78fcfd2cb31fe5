import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { UserError } from "../errors.ts";

/** One step of a solution. */
export interface ProcessStep {
  /** Its function, such as `next_step`. */
  fn: string;
  text: string;
}

/** A solution, finished or not, as far as it goes. */
export interface ProcessState {
  question: string;
  steps: readonly ProcessStep[];
  /** The same as the policy has it: all ids from the prompt on, and for each step the index of its last one. A model that reads text needs none. */
  ids?: { path: Int32Array; ends: readonly number[] };
}

/** A process reward model: how promising a solution is after each of its steps. */
export interface ProcessReward {
  /** For each state one score a step, from 0 (lost) to 1 (sure to end right); none for a state without steps. */
  score(states: readonly ProcessState[]): Promise<number[][]>;
}

/** A process reward server: its address and how it is asked. */
export const processRewardSettings = z.strictObject({
  url: z.url({ protocol: /^https?$/, error: "expected an address such as http://localhost:8008/score" }),
  /** `steps`: many states a request, as docs/methods/rftt.md says; `math-shepherd`: one text a request, as RFTT's server takes it. */
  format: z.enum(["steps", "math-shepherd"]).default("steps"),
  /** Seconds that one request may take. */
  timeout: z.number().positive().default(30),
  /** Times that a request which failed is made again, the waits between them from a quarter of a second on and doubling. */
  retries: z.int().min(0).default(5),
  /** States a request; with `math-shepherd` requests at a time. */
  batch: z.int().positive().default(32),
});
export type ProcessRewardSettings = z.infer<typeof processRewardSettings>;

/** What asking a server came to. */
export interface ProcessRewardCounts {
  requests: number;
  /** States scored. */
  states: number;
  /** Requests without an answer in time, without one at all, and with one that was refused. */
  slow: number;
  down: number;
  garbage: number;
}

const FIRST_WAIT_MS = 250;

/** Why a request failed; `kind` says where it is counted. */
class Failure extends Error {
  readonly kind: "slow" | "down" | "garbage";
  /** Whether the same request may go through later. */
  readonly passing: boolean;

  constructor(kind: Failure["kind"], message: string, passing = true) {
    super(message);
    this.kind = kind;
    this.passing = passing;
  }
}

/**
 * A process reward model behind an address. A request that fails is made again; one that still fails is a UserError that says
 * what was expected and what came, for a score made up in its place would train the policy.
 */
export class HttpProcessReward implements ProcessReward {
  readonly counts: ProcessRewardCounts = { requests: 0, states: 0, slow: 0, down: 0, garbage: 0 };
  private readonly settings: ProcessRewardSettings;

  constructor(settings: ProcessRewardSettings) {
    this.settings = settings;
  }

  async score(states: readonly ProcessState[]): Promise<number[][]> {
    const { format, batch } = this.settings;
    const scores: number[][] = states.map(() => []);
    const asked = states.flatMap(({ steps }, i) => (steps.length > 0 ? [i] : []));
    for (let from = 0; from < asked.length; from += batch) {
      const chunk = asked.slice(from, from + batch);
      const found =
        format === "steps"
          ? await this.ask(
              stepsRequest(chunk.map((i) => states[i])),
              stepsAnswer(chunk.map((i) => states[i].steps.length)),
            )
          : await Promise.all(
              chunk.map((i) => this.ask({ input: shepherdInput(states[i]) }, shepherdAnswer(states[i].steps.length))),
            );
      chunk.forEach((i, at) => (scores[i] = found[at]));
      this.counts.states += chunk.length;
    }
    return scores;
  }

  private async ask<T>(body: object, schema: z.ZodType<T>): Promise<T> {
    const { url, retries } = this.settings;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.request(body, schema);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        this.counts[error.kind]++;
        if (attempt === retries || !error.passing) {
          const tries = attempt === 0 ? "" : ` (${attempt + 1} tries)`;
          throw new UserError(`process reward server ${url}: ${error.message}${tries}`);
        }
      }
      await sleep(FIRST_WAIT_MS * 2 ** attempt);
    }
  }

  private async request<T>(body: object, schema: z.ZodType<T>): Promise<T> {
    const { url, timeout } = this.settings;
    this.counts.requests++;
    let status: number;
    let text: string;
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(timeout * 1000),
      });
      status = response.status;
      text = await response.text();
    } catch (error) {
      if (error instanceof DOMException && error.name === "TimeoutError") {
        throw new Failure("slow", `no answer within ${timeout} s; raise \`timeout\` or lower \`batch\``);
      }
      throw new Failure("down", `cannot be reached: ${reason(error)}; start it, or correct \`url\``);
    }
    if (status !== 200) {
      const passing = status >= 500 || status === 429 || status === 408;
      throw new Failure("garbage", `expected status 200, found ${status}: ${excerpt(text)}`, passing);
    }
    return answerOf(text, schema);
  }
}

function answerOf<T>(text: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Failure("garbage", `expected JSON, found ${excerpt(text)}`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const at = issue.path.length === 0 ? "" : `\`${issue.path.join(".")}\`: `;
  throw new Failure("garbage", `${at}${issue.message}, found ${excerpt(text)}`);
}

const stepsRequest = (states: readonly ProcessState[]) => ({
  states: states.map(({ question, steps }) => ({
    question,
    steps: steps.map(({ fn, text }) => ({ function: fn, text })),
  })),
});

const scoreSchema = z.number("expected a number from 0 to 1").min(0).max(1);

const scoresOf = (steps: number) =>
  z
    .array(scoreSchema, "expected a list of scores")
    .length(steps, `expected one score for each of the ${steps} steps asked about`);

const stepsAnswer = (lengths: number[]) =>
  z
    .object({ scores: z.array(z.array(scoreSchema)) }, 'expected {"scores": [[...], ...]}')
    .transform(({ scores }) => scores)
    .superRefine((scores, context) => {
      const wrong = lengths.findIndex((length, i) => scores[i]?.length !== length);
      if (scores.length !== lengths.length) {
        context.addIssue(
          `expected \`scores\` with ${lengths.length} lists, one for each state, found ${scores.length}`,
        );
      } else if (wrong >= 0) {
        context.addIssue(
          `expected ${lengths[wrong]} scores for state ${wrong}, one for each step, found ${scores[wrong].length}`,
        );
      }
    });

const shepherdAnswer = (steps: number) =>
  z.object({ score: scoresOf(steps) }, 'expected {"score": [...]}').transform(({ score }) => score);

/** The question and its steps, numbered and each followed by Math-Shepherd's step tag (arXiv 2312.08935). */
export const shepherdInput = ({ question, steps }: ProcessState): string =>
  `${question} ${steps.map(({ text }, i) => `Step ${i + 1}: ${text} ки\n`).join("")}`.trim();

const reason = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message !== "" ? error.cause.message : error.message;
};

const excerpt = (text: string): string => {
  const line = text.replaceAll(/\s+/g, " ").trim();
  if (line === "") return "an empty answer";
  return line.length > 120 ? `${line.slice(0, 120)}...` : line;
};
