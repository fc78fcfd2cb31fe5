/** Where a marker stands and what follows it; `text` is "" where nothing complete does: a response that was cut off. */
export interface Found {
  text: string;
  start: number;
  /** Where what follows ends. */
  end: number;
}

const VERB = String.raw`(?::|=|(?:is|are|was|equals|(?:would|should|must|will) be)\b)[\s*_:=]{0,12}(?:(?:indeed|therefore|thus|simply|just|exactly|given by|equal to|option|choice)\b[\s:*_]{0,6})?`;
const ABOUT = String.raw`(?:(?:to|of|for|in)\b[^.\n:=]{0,80}?)?`;

/** "The answer is", "the correct answer to the question is", "**Answer:**", and a heading "## Final answer" on a line of its own. */
const ANSWER = new RegExp(
  String.raw`\banswers?\b[\s*_]{0,6}${ABOUT}${VERB}|^[ \t]{0,8}[#*]{1,6}[ \t]{0,4}(?:(?:final|the)[ \t]){0,2}answers?[*:_ \t]{0,8}\n\s*`,
  "gim",
);

/** Weaker announcements, for a response that never says "answer". */
const CONCLUSION = new RegExp(
  String.raw`\b(?:solutions?|results?|(?:correct|right|best) (?:option|choice))\b[\s*_]{0,6}${ABOUT}${VERB}`,
  "gi",
);

/** What follows the last announcement of an answer, up to the end of its sentence; undefined where nothing is announced. */
export function phraseAnswer(response: string): Found | undefined {
  const found = [...response.matchAll(ANSWER)].at(-1) ?? [...response.matchAll(CONCLUSION)].at(-1);
  if (found === undefined) return undefined;
  const rest = response.slice(found.index + found[0].length).trimStart();
  const stated = sentence(rest);
  return { text: cleanAnswer(stated), start: found.index, end: response.length - rest.length + stated.length };
}

/** An amount of money in running text, `$5 each` or `$1,234.50.`, as against mathematics between two dollar signs. */
const MONEY = /\$\d[\d,]*(?:\.\d+)?(?=\s+[A-Za-z]{2}|[.,;:!?)*]*(?:\s+[A-Za-z]|\s*$))/y;
/** Where a reason or a consequence begins. */
const REASON =
  /(?:,\s*(?:because|since|as|so|which|where|hence|thus|making|giving|meaning)|\s(?:because|since|so))\b/iy;

/** The first sentence of a text: up to a line's end, a period before a blank, or a reason; never inside mathematics or braces. */
export function sentence(text: string): string {
  return scan(text, true) ?? scan(text, false) ?? text;
}

/** Undefined where mathematics or braces that count (`nested`) are never closed. */
function scan(text: string, nested: boolean): string | undefined {
  let depth = 0;
  let inMath = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    const free = depth === 0 && !inMath;
    if (char === "\\") {
      i++;
      if (!nested) continue;
      if (text[i] === "(" || text[i] === "[") inMath = true;
      else if (text[i] === ")" || text[i] === "]") inMath = false;
    } else if (nested && char === "{") depth++;
    else if (nested && char === "}") depth = Math.max(0, depth - 1);
    else if (nested && char === "$") {
      if (free && at(MONEY, text, i)) continue;
      inMath = !inMath;
      if (text[i + 1] === "$") i++;
    } else if (free && ends(text, i)) return text.slice(0, i);
  }
  return depth === 0 && !inMath ? text : undefined;
}

function ends(text: string, i: number): boolean {
  const char = text[i];
  if (char === "\n") return true;
  if (char === "." && text[i - 1] !== ".")
    return (i + 1 === text.length || /[\s*"')]/.test(text[i + 1])) && !text.endsWith("\\right", i);
  return (char === " " || char === ",") && at(REASON, text, i);
}

function at(pattern: RegExp, text: string, index: number): boolean {
  pattern.lastIndex = index;
  return pattern.test(text);
}

/**
 * An answer without what surrounds it: blanks, a leading `=`, bold marks, quotes, a final period, comma, colon or semicolon, and the
 * delimiters of mathematics where they enclose all of it.
 */
export function cleanAnswer(text: string): string {
  let now = text.trim();
  // Each round takes whole runs of marks off, so that the work stays linear.
  for (let round = 0, before = ""; round < 8 && before !== now; round++) {
    before = now;
    now = now.replace(/^(?:(?:\*\*|__)+|=)\s*/, "");
    if (now.endsWith("**") || now.endsWith("__")) now = trimEnd(now, now.slice(-1));
    if (!/(?:\.\.|\\right.|\\.)$/.test(now.slice(-7))) now = trimEnd(now, ".,;:");
    now = unwrap(now).trim();
  }
  return now;
}

function trimEnd(text: string, marks: string): string {
  let end = text.length;
  while (end > 0 && (marks.includes(text[end - 1]) || /\s/.test(text[end - 1]))) end--;
  return text.slice(0, end);
}

const DELIMITERS = [
  ["$$", "$$"],
  ["$", "$"],
  ["\\(", "\\)"],
  ["\\[", "\\]"],
  ["`", "`"],
  ['"', '"'],
] as const;

function unwrap(text: string): string {
  for (const [open, close] of DELIMITERS) {
    if (text.length < open.length + close.length + 1 || !text.startsWith(open) || !text.endsWith(close)) continue;
    const inside = text.slice(open.length, text.length - close.length);
    if (!inside.includes(open) && !inside.includes(close) && !(open === "$" && inside.endsWith("\\"))) return inside;
  }
  return text;
}
