/* What the parts of a page share. */

/** A budget in words. */
export const label = (name: string): string => (name === "generatedTokens" ? "generated tokens" : "engine seconds");

export const thousands = (value: number): string => Math.round(value).toLocaleString("en-US");

/** Text in a table's cell or a line. */
export const cell = (text: string): string => text.replace(/\s+/g, " ").replace(/\|/g, "\\|").replace(/</g, "&lt;");

export function table(head: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Whose weights were asked. */
export const armAt = (arm: string, at?: "start" | "end"): string =>
  at === "start" ? `${arm}, before its last stage` : arm;
