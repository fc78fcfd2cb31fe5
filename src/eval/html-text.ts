import temml from "temml";

/** Escapes text for HTML, in elements and in quoted attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** Characters that reorder or hide text or are halves of one, which a reader of a model's answer must see; line ends and tabs are none. */
export const HIDDEN = /(?![\t\n\r])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Text for HTML: everything escaped, hidden characters named. */
export function plainText(text: string): string {
  return escapeHtml(text).replace(HIDDEN, (c) => {
    const code = (c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    return `<span class="hidden">U+${code}</span>`;
  });
}

/** Longer formulas are shown as they were written. */
const LONGEST_FORMULA = 2000;

/**
 * Where a formula stands: `\[..\]`, `\(..\)`, `$$..$$`, `$..$` and a bare `\boxed{..}`. A single dollar opens before and closes after
 * what is no blank, and no digit follows it (as in Pandoc), so that prices stay text.
 */
const FORMULA = new RegExp(
  [
    String.raw`\\\[(?<bracket>[^]{1,${LONGEST_FORMULA}}?)\\\]`,
    String.raw`\\\((?<paren>[^]{1,${LONGEST_FORMULA}}?)\\\)`,
    String.raw`\$\$(?<dollars>[^$]{1,${LONGEST_FORMULA}})\$\$`,
    String.raw`\$(?<dollar>[^\s$](?:[^$\n]{0,${LONGEST_FORMULA}}[^\s$\\])?)\$(?!\d)`,
    String.raw`(?<boxed>\\boxed\{)`,
  ].join("|"),
  "g",
);

/** A model's text for HTML: formulas as MathML with their source beside them (CSS shows one), all else as text. */
export function mathText(text: string): string {
  const pattern = new RegExp(FORMULA, "g");
  let html = "";
  let from = 0;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const { bracket, paren, dollars, dollar } = match.groups ?? {};
    const end = match.groups?.boxed === undefined ? pattern.lastIndex : closingBrace(text, pattern.lastIndex);
    const source = text.slice(match.index, end);
    const rendered = formula(bracket ?? paren ?? dollars ?? dollar ?? source, (bracket ?? dollars) !== undefined);
    if (rendered === undefined) continue;
    html += `${plainText(text.slice(from, match.index))}${withSource(rendered, source)}`;
    from = end;
    pattern.lastIndex = end;
  }
  return html + plainText(text.slice(from));
}

const withSource = (mathml: string, source: string): string =>
  `<span class="formula">${mathml}<code>${plainText(source)}</code></span>`;

/** Where the group ends that was opened just before `at`; the place itself where it does not end. */
function closingBrace(text: string, at: number): number {
  let depth = 1;
  for (let i = at; i < Math.min(text.length, at + LONGEST_FORMULA); i++) {
    if (text[i] === "{") depth++;
    if (text[i] === "}" && --depth === 0) return i + 1;
  }
  return at;
}

/** An answer, which is often bare TeX: as a formula where it holds a TeX command, else as text. */
export function answerText(answer: string): string {
  if (/\\[a-zA-Z]/.test(answer) && !answer.includes("$") && answer.length <= LONGEST_FORMULA) {
    const rendered = formula(answer, false);
    if (rendered !== undefined) return withSource(rendered, answer);
  }
  return mathText(answer);
}

const remembered = new Map<string, string | undefined>();

function formula(tex: string, displayMode: boolean): string | undefined {
  const key = `${displayMode ? "d" : "i"}${tex}`;
  if (!remembered.has(key)) {
    if (remembered.size > 10_000) remembered.clear();
    remembered.set(key, render(tex, displayMode));
  }
  return remembered.get(key);
}

/** MathML alone: these elements, attributes without handlers or addresses. A second wall behind temml's own escaping. */
const SAFE =
  /^(?:[^<>]|<\/?(?:math|m[a-z]{1,14}|semantics)(?:\s+(?!on|href|src|xlink)[a-zA-Z:-]+="[^"<>]*")*\s*\/?>)*$/;

/** Undefined where it is no TeX that temml reads. */
function render(tex: string, displayMode: boolean): string | undefined {
  if (tex.trim() === "" || tex.search(HIDDEN) >= 0) return undefined;
  try {
    const html = temml.renderToString(tex, {
      displayMode,
      throwOnError: true,
      trust: false,
      maxSize: [20, 20],
      maxExpand: 200,
    });
    return SAFE.test(html) && !/url\(|javascript:/i.test(html) ? html : undefined;
  } catch {
    // What a model wrote need not be TeX; the source is shown then.
    return undefined;
  }
}
