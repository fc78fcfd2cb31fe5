import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeBlock } from "./blocks.ts";
import { makeReader } from "./client/reader.ts";

/** The page's own reader over blocks instead of a page. */
const reader = (blocks: Record<string, string>) =>
  // Of a document the reader needs this alone.
  makeReader({ getElementById: (id: string) => ({ textContent: blocks[id] }) } as unknown as Document);

test("what a page embeds comes back as it was: any text, lone surrogates too, and every number's bits", async () => {
  const text = fc.string({ unit: "binary" }).map((whole) => `${whole}\ud800</script>\0`);
  await fc.assert(
    fc.asyncProperty(
      fc.jsonValue(),
      text,
      fc.float32Array(),
      fc.uint8Array(),
      fc.float64Array(),
      async (json, s, a, b, c) => {
        const block = encodeBlock({ json, s }, { a, b, c });
        expect(block).toMatch(/^[\w+/]*=*$/);
        const { data, arrays } = await reader({ x: block }).read("x");
        expect(data).toEqual(JSON.parse(JSON.stringify({ json, s })));
        expect([arrays.a, arrays.b, arrays.c]).toEqual([a, b, c]);
      },
    ),
    { numRuns: 50, seed: 1 },
  );
});

test("numbers of blocks that were not looked at for long are let go, texts stay", async () => {
  const blocks = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [`numbers-${i}`, encodeBlock(null, { ids: Int32Array.of(i) })]),
  );
  const one = reader({ ...blocks, "texts-0": encodeBlock([]) });
  const first = one.numbers(0);
  expect(one.numbers(0)).toBe(first);
  expect(one.texts(0)).toBe(one.texts(0));
  for (let i = 1; i < 40; i++) expect((await one.numbers(i)).ids[0]).toBe(i);
  expect(one.numbers(0)).not.toBe(first);
});
