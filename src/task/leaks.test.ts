import fc from "fast-check";
import { expect, test } from "vitest";
import { findLeaks } from "./leaks.ts";
import type { Problem } from "./types.ts";

const of = (id: string, question: string): Problem => ({
  id,
  question,
  prompt: { messages: [{ role: "user", content: `${question}\n\nReason step by step.` }] },
});

const question =
  "A train leaves the old station at nine and travels for 3 hours at $60$ miles per hour; how far does it go before noon?";

test("the same words are a leak, whatever the case, the punctuation and LaTeX's spacing", () => {
  const same = question.toUpperCase().replace("$60$", "\\(60\\)").replace(";", " --").replace(" -- ", ", ");
  expect(findLeaks([of("t1", "another"), of("t2", same)], [of("e", question)])).toEqual([
    { problem: "e", train: "t2", overlap: 1, exact: true },
  ]);
});

test("most of the words in a row are a leak, a shared beginning is none", () => {
  const longer = `${question.replace("?", " exactly?")} Give the answer in miles.`;
  const [near] = findLeaks([of("t", longer)], [of("e", question)]);
  expect(near).toMatchObject({ problem: "e", train: "t", exact: false });
  expect(near.overlap).toBeGreaterThan(0.7);
  const other = "A train leaves the old station at nine and travels for 5 days through the mountains; who is on it?";
  expect(findLeaks([of("t", other)], [of("e", question)])).toEqual([]);
});

test("another number or operator makes a short question another one", () => {
  const pairs = [
    ["What is 3 + 4?", "What is 3 + 5?"],
    ["What is 3 + 4?", "What is 3 - 4?"],
  ];
  for (const [a, b] of pairs) expect(findLeaks([of("t", a)], [of("e", b)])).toEqual([]);
});

test("every planted question is found and named, no other is", () => {
  const words = fc.array(fc.constantFrom(..."abcdefghijklmnopqrst"), { minLength: 12, maxLength: 20 });
  fc.assert(
    fc.property(fc.array(words, { minLength: 4, maxLength: 20 }), fc.nat(3), (texts, planted) => {
      const unique = [...new Set(texts.map((text) => text.join(" ")))];
      fc.pre(unique.length > planted);
      const train = unique.map((text, i) => of(`t${i}`, text));
      const evaluated = [of("e0", "nothing like it"), of("e1", unique[planted])];
      expect(findLeaks(train, evaluated)).toEqual([{ problem: "e1", train: `t${planted}`, overlap: 1, exact: true }]);
    }),
  );
});
