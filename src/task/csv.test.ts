import fc from "fast-check";
import { expect, test } from "vitest";
import { csvRecords } from "./csv.ts";

test("quoted fields hold commas, quotes and line ends; records know their first line", () => {
  const rows = csvRecords("f.csv", '\uFEFFa,b\r\n1,"x, ""y""\nz"\r\n\r\n2,\n');
  expect(rows).toEqual([
    { place: "f.csv:2", value: { a: "1", b: 'x, "y"\nz' } },
    { place: "f.csv:5", value: { a: "2", b: "" } },
  ]);
});

test("what was written is read", () => {
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
  const table = fc
    .integer({ min: 2, max: 4 })
    .chain((n) => fc.array(fc.array(fc.string({ unit: "grapheme" }), { minLength: n, maxLength: n })));
  fc.assert(
    fc.property(table, fc.constantFrom("\n", "\r\n"), fc.boolean(), (lines, end, last) => {
      const width = lines[0]?.length ?? 2;
      const names = Array.from({ length: width }, (_, i) => `f${i}`);
      const text = [names, ...lines].map((fields) => fields.map(quoted).join(",")).join(end) + (last ? end : "");
      const read = csvRecords("f.csv", text).map(({ value }) => names.map((name) => value[name]));
      expect(read).toEqual(lines);
    }),
  );
});

test("mistakes name the line", () => {
  expect(() => csvRecords("f.csv", 'a,b\n1,2\n3,"4\n')).toThrow(/^f\.csv:3: a quote that is not closed/);
  expect(() => csvRecords("f.csv", "a,b\n1,2,3\n")).toThrow(/^f\.csv:2: expected 2 fields .* found 3/);
});
