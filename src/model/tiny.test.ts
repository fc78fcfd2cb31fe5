import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UserError } from "../errors.ts";
import { tensorShapes } from "./shape.ts";
import { tinyFiles } from "./tiny.ts";

const vocabulary = [
  ..."0123456789",
  " Tom",
  " has",
  " apple",
  " apples",
  " ",
  "Tom",
  ".",
  "?",
  "\n",
  "####",
  "#",
  "a",
  "(",
  "\\d",
  "]",
];
const normal =
  (i = 0) =>
  () =>
    Math.sin(++i * 1.7);

describe("tiny", () => {
  it("has the shape and size that its name promises", () => {
    const words = Array.from({ length: 148 }, (_, i) => ` word${i}`);
    const { config, tensors } = tinyFiles({ vocabulary: words }, normal());
    expect(config).toMatchObject({ vocab: 149, hidden: 64, layers: 3, heads: 4, headDim: 16, eosIds: [0] });
    expect(new Map([...tensors].map(([name, { dims }]) => [name, dims]))).toEqual(tensorShapes(config));
    const parameters = [...tensors.values()].reduce((sum, { bytes }) => sum + bytes.length / 4, 0);
    expect(parameters).toBe(160_832);
  });

  it("starts from the numbers it is given, and norms from one", () => {
    const a = tinyFiles({ vocabulary }, normal()).tensors;
    const bytes = (tensors: typeof a) => Buffer.concat([...tensors.values()].map((tensor) => tensor.bytes));
    expect(bytes(tinyFiles({ vocabulary }, normal()).tensors).equals(bytes(a))).toBe(true);
    expect(bytes(tinyFiles({ vocabulary }, normal(5)).tensors).equals(bytes(a))).toBe(false);
    const norm = a.get("model.norm.weight")?.bytes ?? new Uint8Array();
    expect(new Set(new Float32Array(norm.buffer))).toEqual(new Set([1]));
  });

  it("gives every text that the vocabulary covers back", () => {
    const { tokenizer } = tinyFiles({ vocabulary }, normal());
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...vocabulary)), (words) => {
        const text = words.join("");
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
    );
  });

  it("takes the longest word, and single characters where no word fits", () => {
    const { tokenizer } = tinyFiles({ vocabulary }, normal());
    const texts = (text: string) => Array.from(tokenizer.encode(text), (id) => tokenizer.decode([id]));
    expect(texts("Tom has 12 apples.\n#### 5")).toEqual("Tom| has| |1|2| apples|.|\n|####| |5".split("|"));
    expect(texts(" applea##")).toEqual([" apple", "a", "#", "#"]);
    expect(tokenizer.vocabSize).toBe(vocabulary.length + 1);
    expect(tokenizer.hasChatTemplate).toBe(false);
  });

  it("names a word that it lacks, and keeps the end token out of text", () => {
    const { tokenizer } = tinyFiles({ vocabulary }, normal());
    expect(() => tokenizer.encode("Tom has zebra")).toThrow(UserError);
    expect(() => tokenizer.encode("Tom has zebra")).toThrow('no token for "zebr" in "Tom has zebra"');
    expect(tokenizer.idOf("<|endoftext|>")).toBe(0);
    expect(tokenizer.encode("<|endoftext|>", { special: true })).toEqual(Int32Array.of(0));
    expect(() => tokenizer.encode("<|endoftext|>")).toThrow(UserError);
  });

  it("refuses vocabularies and shapes that cannot be", () => {
    expect(() => tinyFiles({ vocabulary: [] }, normal())).toThrow(UserError);
    expect(() => tinyFiles({ vocabulary: ["a", "a"] }, normal())).toThrow('"a" stands twice');
    expect(() => tinyFiles({ vocabulary, hidden: 20, heads: 4 }, normal())).toThrow("not a multiple");
  });
});
