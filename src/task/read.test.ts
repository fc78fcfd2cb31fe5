import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { readRows } from "./read.ts";

const folder = mkdtempSync(join(tmpdir(), "rifft-read-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

async function complaint(path: string): Promise<string> {
  const error: unknown = await readRows(path).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  return error instanceof Error ? error.message.slice(folder.length + 1) : "";
}

describe("readRows", () => {
  test("JSON lines with blank lines, a byte order mark and Windows line ends", async () => {
    const rows = await readRows(file("a.jsonl", '\uFEFF{"a": 1}\r\n\r\n{"a": 2}\r\n'));
    expect(rows.map(({ value }) => value)).toEqual([{ a: 1 }, { a: 2 }]);
    expect(rows.map(({ place }) => place.slice(folder.length + 1))).toEqual(["a.jsonl:1", "a.jsonl:3"]);
  });

  test("every item of a JSON array knows its line", async () => {
    const item = fc.dictionary(
      fc.string(),
      fc.oneof(fc.string(), fc.integer(), fc.array(fc.string()), fc.constant({})),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(item, { minLength: 1 }), fc.constantFrom(undefined, 1), async (items, indent) => {
        const texts = items.map((value) => JSON.stringify(value, undefined, indent));
        const rows = await readRows(file("p.json", `[\n${texts.join(",\n")}\n]`));
        expect(rows.map(({ value }) => value)).toEqual(JSON.parse(JSON.stringify(items)));
        let line = 2;
        for (const [i, text] of texts.entries()) {
          expect(rows[i].place.endsWith(`:${line}`)).toBe(true);
          line += text.split("\n").length;
        }
      }),
      { numRuns: 50 },
    );
  });

  test("names file and line of what is malformed", async () => {
    expect(await complaint(file("b.jsonl", '{"a": 1}\n{"a": \n'))).toMatch(/^b\.jsonl:2: malformed JSON/);
    expect(await complaint(file("c.jsonl", '{"a": 1}\n[1]\n'))).toMatch(
      /^c\.jsonl:2: expected a record .* found an array/,
    );
    expect(await complaint(file("d.json", '[\n{"a": 1},\n{"a" 2}\n]'))).toMatch(/^d\.json:3: malformed JSON/);
    expect(await complaint(file("e.json", '[\n{"a": 1},\n7\n]'))).toMatch(
      /^e\.json:3: expected a record .* found a number/,
    );
    expect(await complaint(file("f.json", '{"a": 1}'))).toMatch(/^f\.json: expected a JSON array/);
    expect(await complaint(file("g.json", '[{"a": 1}'))).toMatch(/^g\.json:1: malformed JSON/);
    expect(await complaint(file("h.parquet", "PAR1 not really"))).toMatch(/^h\.parquet: not a complete parquet file/);
  });

  test("empty and missing files", async () => {
    expect(await complaint(file("i.jsonl", "\n\n"))).toMatch(/^i\.jsonl: the data file is empty/);
    expect(await complaint(file("j.json", "[]"))).toMatch(/^j\.json: the data file is empty/);
    expect(await complaint(join(folder, "none.jsonl"))).toMatch(/^none\.jsonl: cannot read the data file \(ENOENT\)/);
  });
});
