import { RandomStream } from "../engine/random.ts";
import { serialize } from "../tags/index.ts";
import { stateAnswer } from "./grading.ts";
import { pathOf, taggedOptions, taggedVocabulary } from "./tagged.ts";
import type { RoundDemonstration, RoundsDefinition, TaskDefinition } from "./types.ts";
import { type StoryFormats, type WordProblemOptions, wordProblems } from "./wordproblems.ts";

/*
 * The word problems asked in three ways, for comparisons of methods that answer in different ones: plain, in rounds, and in the format
 * `tagged`, with functional tokens. The prompt's beginning says which. A hasty demonstration is hasty in all of them.
 */

const WITH_TAGS = "With tags: ";
const ROUNDS_LEFT = " rounds left: ";

/** How often a demonstrated round takes one step; else it takes two. */
const ONE_STEP = 0.8;

const tagged: StoryFormats = (text, told, draw) => {
  const { steps, wrong } = pathOf(told, taggedOptions.parse({ name: "tagged" }), draw);
  const answer = stateAnswer("hashes", String(told.values[told.values.length - 1]));
  const path = [...steps.slice(0, -1), { fn: "output" as const, text: answer }];
  const end = (step: number) => serialize(path.slice(0, step), "tokens").length;
  return {
    tagged: {
      prompt: { text: `${WITH_TAGS}${text}\n` },
      demonstrations: [serialize(path, "tokens")],
      masks: [wrong.map((at) => [end(at), end(at + 1)])],
    },
  };
};

/** The last progress or answer that a response states: steps done and the value so far. */
const progressOf = (response: string): string | undefined => /(?:> \d+: |#### )\d+(?=[^>#]*$)/.exec(response)?.[0];

const rounds: RoundsDefinition = {
  most: 9,
  prompt: ({ question = "" }, round, rounds, progress) => ({
    text: `${rounds - round + 1}${ROUNDS_LEFT}${question}\n${progress === undefined ? "" : `${progress}\n`}`,
  }),
  progress: progressOf,
  final: (response) => progressOf(response)?.startsWith("#") === true,
  demonstrate(problem, count) {
    const lines = (problem.demonstrations?.[0] ?? "").split("\n");
    const answer = lines.pop() ?? "";
    const stateAfter = (done: number) => {
      if (done === lines.length) return answer;
      return done === 0 ? undefined : `> ${done}: ${/= (\d+)\.$/.exec(lines[done - 1])?.[1]}`;
    };
    const stream = new RandomStream(`${problem.id}/${problem.question}/rounds`);
    return Array.from({ length: count }, (_, i): RoundDemonstration => {
      const last = i === count - 1;
      // Any place where a round may begin, the end included: an answer is stated again.
      const from = i === 0 ? 0 : stream.below(lines.length + 1);
      const steps = stream.uniform() < ONE_STEP ? 1 : 2;
      const to = last ? lines.length : Math.min(lines.length, from + steps);
      return {
        prompt: rounds.prompt(problem, i + 1, count, stateAfter(from)),
        response: [...lines.slice(from, to), stateAfter(to) ?? answer].join("\n"),
      };
    });
  },
};

/** The word problems with their other formats. */
export function wordProblemsInFormats(options: WordProblemOptions, runSeed: number): TaskDefinition {
  const task = wordProblems(options, runSeed, tagged);
  return { ...task, vocabulary: [...taggedVocabulary(), WITH_TAGS, ROUNDS_LEFT, "> ", "\n"], rounds };
}
