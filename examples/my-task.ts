/**
 * A task of one's own: unit conversions. A task is problems, a prompt and a reward; this file has all three.
 *
 *   ./bin/rifft eval --model M --task examples/my-task.ts
 */
import { defineTask, equalNumbers, extractNumber, type Problem, RandomStream } from "rifft/task";

/** [larger unit, smaller unit, how many of these make one of those] */
const UNITS = [
  ["metres", "centimetres", 100],
  ["kilometres", "metres", 1000],
  ["hours", "minutes", 60],
  ["minutes", "seconds", 60],
  ["days", "hours", 24],
  ["weeks", "days", 7],
  ["kilograms", "grams", 1000],
  ["feet", "inches", 12],
] as const;

/** Every number of problems can be made; `first` keeps the splits apart: 2 to 60 for training, 61 to 80 held out. */
function conversions(count: number, first: number, last: number, seed: string): Problem[] {
  const random = new RandomStream(seed);
  return Array.from({ length: count }, (_, i) => {
    const [large, small, factor] = UNITS[random.below(UNITS.length)];
    const amount = first + random.below(last - first + 1);
    const down = random.below(2) === 0;
    const [from, to, given, answer] = down
      ? [large, small, amount, amount * factor]
      : [small, large, amount * factor, amount];
    return {
      id: `${seed}-${i}`,
      prompt: { messages: [{ role: "user", content: `Convert ${given} ${from} to ${to}.` }] },
      demonstrations: [`${given} ${down ? "*" : "/"} ${factor} = ${answer}\n#### ${answer} ${to}`],
      answer: String(answer),
      data: { unit: to },
    };
  });
}

export default defineTask({
  name: "conversions",
  splits: {
    train: conversions(2000, 2, 60, "train"),
    dev: conversions(200, 61, 70, "dev"),
    test: conversions(400, 71, 80, "test"),
  },
  /** Two named parts: is the number right, and does the answer carry its unit? */
  reward(problem, response) {
    const number = extractNumber(response);
    const unit = String(problem.data?.unit);
    return {
      correct: number !== undefined && equalNumbers(number.text, problem.answer ?? "") ? 1 : 0,
      unit: new RegExp(`\\b${unit}\\b[.\\s]*$`).test(response) ? 1 : 0,
    };
  },
  /** The number counts most. */
  weights: { correct: 1, unit: 0.2 },
  /** Seconds for one reward; a reward that is still running then costs its own sample and nothing else. */
  deadline: 5,
});
