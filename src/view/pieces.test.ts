import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { fixture } from "../../test/local.ts";
import { loadTokenizer } from "../model/load.ts";
import type { Tokenizer } from "../model/types.ts";
import { Pieces } from "./pieces.ts";

const shown = (pieces: Pieces, tokens: number[], text: string): string[] => {
  const table = () => new Map(pieces.table()[0].map((id, i) => [id, pieces.table()[1][i]]));
  const found = pieces.of(tokens, text);
  return found ?? tokens.map((id) => table().get(id) ?? "");
};

test("the texts of a byte-level tokenizer's tokens make up the text, characters of several tokens too", async () => {
  const tokenizer = await loadTokenizer(fixture("llama"));
  const pieces = new Pieces(tokenizer);
  const alphabet = fc.constantFrom("a", " ", "7", "\n", "é", "日", "🙂", "\u202e", "<", "{");
  fc.assert(
    fc.property(fc.array(alphabet, { maxLength: 30 }), (characters) => {
      const text = characters.join("");
      const tokens = Array.from(tokenizer.encode(text));
      const found = shown(pieces, tokens, tokenizer.decode(tokens, { special: true }));
      expect(found).toHaveLength(tokens.length);
      expect(found.join("")).toBe(text);
    }),
    { seed: 1 },
  );
  expect(pieces.foreign).toBe(0);
});

test("broken bytes are shown, not lost", async () => {
  const tokenizer = await loadTokenizer(fixture("llama"));
  const [first] = tokenizer.encode("é");
  const tokens = [first, first, ...tokenizer.encode("a")];
  const text = tokenizer.decode(tokens, { special: true });
  expect(text).toContain("\ufffd");
  expect(shown(new Pieces(tokenizer), tokens, text).join("")).toBe(text);
});

test("without the tokenizer, or with another one, the text stands with the first token", () => {
  const pieces = new Pieces(undefined);
  expect(pieces.of([5, 6, 7], "abc")).toEqual(["abc", "", ""]);
  const other: Pick<Tokenizer, "decode"> = { decode: (ids) => "x".repeat(ids.length) };
  const foreign = new Pieces(other as Tokenizer);
  expect(foreign.of([5, 6], "abc")).toEqual(["abc", ""]);
  expect(foreign.foreign).toBe(1);
});

test("a folder without a tokenizer is said", async () => {
  await expect(loadTokenizer(join(import.meta.dirname, "client"))).rejects.toThrow("no tokenizer.json");
});
