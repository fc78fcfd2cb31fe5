import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import { type Benchmark, parseRow } from "./benchmark.ts";
import { letterOf } from "./questions.ts";
import type { Row } from "./read.ts";

const text = z.string().trim().min(1);
const label = z.union([text, z.number(), z.bigint()]).transform(String);

/** An option's letter, checked against how many options there are. */
function letter(given: string, options: string[], { place }: Row): string {
  const wanted = given.trim().toUpperCase();
  const letters = options.map((_, i) => letterOf(i));
  if (letters.includes(wanted)) return wanted;
  throw new UserError(`${place}: the right option ${JSON.stringify(given)} is none of ${letters.join(", ")}`);
}

const mmluProRow = z.object({
  question_id: label,
  question: text,
  options: z.array(z.string()).min(2),
  answer: text,
  category: text.optional(),
});

/** MMLU-Pro (Wang et al. 2024): up to ten options. Its validation split is the authors' worked examples. */
export const mmluPro: Benchmark = {
  name: "mmlu-pro",
  hub: "TIGER-Lab/MMLU-Pro",
  form: "choice",
  testOnly: true,
  parse(row) {
    const expected = "question_id, question, the list options and answer";
    const { question_id, question, options, answer, category } = parseRow(mmluProRow, row, expected);
    // Some lists are filled up with N/A.
    const real = options
      .map((option) => option.trim())
      .filter((option, i) => option !== "N/A" || letterOf(i) === answer);
    return {
      id: `mmlu-pro-${question_id}`,
      question,
      options: real,
      answer: letter(answer, real, row),
      ...(category === undefined ? {} : { tags: { category } }),
    };
  },
};

const gpqaRow = z.object({
  Question: text,
  "Correct Answer": text,
  "Incorrect Answer 1": text,
  "Incorrect Answer 2": text,
  "Incorrect Answer 3": text,
  "Record ID": text.optional(),
  "High-level domain": z.string().nullish(),
  Subdomain: z.string().nullish(),
});

/**
 * GPQA (Rein et al. 2023), the diamond set unless `path` names another file. The file has the right answer in a column of its own,
 * so the options are shuffled, by a stream that the question's text alone decides.
 */
export const gpqa: Benchmark = {
  name: "gpqa",
  hub: "Idavidrein/gpqa",
  files: { test: ["gpqa_diamond", "test", "train"] },
  form: "choice",
  testOnly: true,
  parse(row, index) {
    const found = parseRow(gpqaRow, row, "Question, Correct Answer and Incorrect Answer 1 to 3");
    const right = found["Correct Answer"];
    const wrong = [found["Incorrect Answer 1"], found["Incorrect Answer 2"], found["Incorrect Answer 3"]];
    const order = new RandomStream(`gpqa/${found.Question}`).shuffle([0, 1, 2, 3]);
    const tags = Object.entries({ domain: found["High-level domain"], subdomain: found.Subdomain });
    return {
      id: found["Record ID"] ?? `gpqa-${index}`,
      question: found.Question,
      options: order.map((i) => [right, ...wrong][i]),
      answer: letterOf(order.indexOf(0)),
      tags: Object.fromEntries(tags.flatMap(([tag, value]) => (value ? [[tag, value]] : []))),
    };
  },
};

/** As the Hub has it (`choices` of two lists), and as its authors publish it (`question.stem`, `question.choices`). */
const commonsenseRow = z.union([
  z
    .object({
      id: text,
      question: text,
      choices: z.object({ label: z.array(text), text: z.array(z.string()) }),
      answerKey: z.string(),
    })
    .transform(({ id, question, choices, answerKey }) => ({
      id,
      question,
      labels: choices.label,
      texts: choices.text,
      answerKey,
    })),
  z
    .object({
      id: text,
      question: z.object({ stem: text, choices: z.array(z.object({ label: text, text: z.string() })) }),
      answerKey: z.string().default(""),
    })
    .transform(({ id, question: { stem, choices }, answerKey }) => ({
      id,
      question: stem,
      labels: choices.map(({ label }) => label),
      texts: choices.map(({ text }) => text),
      answerKey,
    })),
]);

/** CommonsenseQA (Talmor et al. 2019). Its test file has no answers, so that the validation file is the test split. */
export const commonsenseqa: Benchmark = {
  name: "commonsenseqa",
  hub: "tau/commonsense_qa",
  folders: ["commonsense_qa"],
  files: { train: ["train", "train_rand_split"], test: ["validation", "dev_rand_split", "dev"] },
  form: "choice",
  parse(row) {
    const expected = "id, question, choices and answerKey";
    const { id, question, labels, texts, answerKey } = parseRow(commonsenseRow, row, expected);
    if (answerKey === "") {
      throw new UserError(`${row.place}: no answer (the published test file has none): take the validation file`);
    }
    const right = labels.indexOf(answerKey);
    if (right < 0 || labels.length !== texts.length) {
      throw new UserError(
        `${row.place}: the right option ${JSON.stringify(answerKey)} is none of ${labels.join(", ")}`,
      );
    }
    return { id, question, options: texts.map((option) => option.trim()), answer: letterOf(right) };
  },
};
