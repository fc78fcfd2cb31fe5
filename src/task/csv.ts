import { UserError } from "../errors.ts";

/**
 * The records of a CSV file (RFC 4180): the first line names the fields; a field in double quotes may hold commas, line ends and
 * doubled quotes. Throws a UserError that names file and line where a quote is not closed or a record has another number of fields.
 */
export function csvRecords(file: string, text: string): { place: string; value: Record<string, string> }[] {
  const records = csvFields(file, text.replace(/^\uFEFF/, ""));
  const names = records.shift()?.fields ?? [];
  return records.map(({ line, fields }) => {
    const place = `${file}:${line}`;
    if (fields.length !== names.length) {
      throw new UserError(`${place}: expected ${names.length} fields as in the first line, found ${fields.length}`);
    }
    return { place, value: Object.fromEntries(names.map((name, i) => [name, fields[i]])) };
  });
}

function csvFields(file: string, text: string): { line: number; fields: string[] }[] {
  const records: { line: number; fields: string[] }[] = [];
  // A field in quotes, or a bare one; what ends it; sticky, so that nothing is skipped.
  const field = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/y;
  let line = 1;
  let fields: string[] = [];
  let start = 1;
  while (field.lastIndex < text.length || fields.length > 0) {
    const at = field.lastIndex;
    const found = field.exec(text);
    if (found === null) {
      throw new UserError(`${file}:${line}: a quote that is not closed, or text beside a quoted field (malformed CSV)`);
    }
    fields.push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    line += text.slice(at, field.lastIndex).split("\n").length - 1;
    if (found[3] === ",") continue;
    // An empty line is no record.
    if (fields.length > 1 || fields[0] !== "") records.push({ line: start, fields });
    fields = [];
    start = line;
  }
  return records;
}
