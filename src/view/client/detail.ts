/// <reference lib="dom" />
import type { AnswerGrade } from "../../eval/samples.ts";
import type { Numbers } from "../blocks.ts";
import type { Columns, KINDS } from "../columns.ts";
import type { ViewHead, ViewSegment, ViewTree } from "../types.ts";
import type { Dom } from "./dom.ts";
import type { Reader } from "./reader.ts";
import type { Tokens } from "./tokens.ts";

export interface DetailOptions {
  dom: Dom;
  head: ViewHead;
  columns: Columns;
  kinds: typeof KINDS;
  reader: Reader;
  tokens: Tokens;
  place: HTMLElement;
  /** Goes to another row. */
  go(row: number): void;
  title(row: number): string;
}

/** Shows one sample, or a tree with all its samples. */
export function makeDetail({ dom, head, columns, kinds, reader, tokens, place, go, title }: DetailOptions) {
  const { element, append, text, markup } = dom;
  let [shown, paint] = [-1, "logprobs"];
  let words: readonly string[] = [];
  const labels = { equal: ["right", "right"], different: ["wrong", "wrong"], unsure: ["unsure", "unsure"] } as const;

  function pathTo({ segments }: ViewTree, end: number): number[] {
    const path: number[] = [];
    for (let s = end; s >= 0; s = segments[s].parent) path.push(s);
    return path.reverse();
  }

  function verdict(name: string, grade: AnswerGrade | undefined): HTMLElement | undefined {
    if (grade === undefined) return undefined;
    const [label, className] = labels[grade.verdict];
    const how = [grade.strategy, grade.rule, grade.reason]
      .filter((part) => part !== undefined && part !== "")
      .join("; ");
    return element(
      "div",
      { class: "grade", "data-grading": name },
      `${name} `,
      element("span", { class: `verdict ${className}` }, label),
      " ",
      grade.answer === undefined ? "no answer found" : element("bdi", {}, grade.answer),
      element("span", { class: "soft" }, ` (${how})`),
    );
  }

  function facts(entries: [string, string | undefined][]): HTMLElement {
    const list = element("dl", { class: "facts" });
    for (const [name, value] of entries) {
      if (value !== undefined)
        list.append(element("div", {}, element("dt", {}, name), element("dd", { "data-fact": name }, value)));
    }
    return list;
  }

  const plain = (value: number): string | undefined => (Number.isNaN(value) ? undefined : String(value));
  /** Of what the page computes itself: means over tokens. */
  const rounded = (value: number): string | undefined =>
    Number.isNaN(value) ? undefined : String(Number(value.toPrecision(6)));

  /** The question with its options and tags; the text is left out where the prompt shows it. */
  function question(row: number, { segments: [prompt] }: ViewTree): HTMLElement | undefined {
    const { question, html, options = [], tags = {} } = head.problems[columns.problem[row]];
    const asked = question !== undefined && !prompt.text.includes(question.trim());
    if (!asked && options.length === 0 && Object.keys(tags).length === 0) return undefined;
    const body = html !== undefined && paint === "formulas" ? markup(html) : element("div", {}, question ?? "");
    body.className = "text";
    body.dir = "auto";
    const tagged = Object.entries(tags).map(([tag, value]) => `${tag}: ${value}`);
    return element(
      "section",
      { class: "question" },
      asked ? element("h3", {}, "question") : undefined,
      asked ? body : undefined,
      ...options.map((option, i) => element("div", {}, `${String.fromCharCode(65 + i)}. ${option}`)),
      tagged.length === 0 ? undefined : element("div", { class: "soft" }, tagged.join(", ")),
    );
  }

  /** A segment: its tokens coloured, or its formulas. */
  function segmentText(segment: ViewSegment, numbers: Record<string, Numbers>, scale: number): HTMLElement {
    const body = paint === "formulas" && segment.html !== undefined ? markup(segment.html) : element("div", {});
    body.className = "text";
    body.dir = "auto";
    if (paint === "formulas" || paint === "plain") {
      if (body.childNodes.length === 0) text(body, segment.text);
      return body;
    }
    body.append(tokens.show(segment, numbers, paint, scale));
    const info = element("div", { class: "token soft", role: "status" });
    const describe = (token: HTMLElement) => {
      body.querySelector(".at")?.classList.remove("at");
      token.classList.add("at");
      info.textContent = tokens.describe(segment, numbers, Number(token.dataset.t));
    };
    body.addEventListener("pointerover", ({ target }) => {
      const token = target instanceof Element ? target.closest<HTMLElement>("[data-t]") : null;
      if (token !== null) describe(token);
    });
    if (segment.tokens > 0) {
      body.tabIndex = 0;
      body.setAttribute("role", "group");
      body.setAttribute(
        "aria-label",
        `${segment.source}, ${segment.tokens} tokens; left and right arrows walk through them`,
      );
      body.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
        const all = body.querySelectorAll<HTMLElement>("[data-t]");
        const now = Number(
          body.querySelector<HTMLElement>(".at")?.dataset.t ?? (event.key === "ArrowRight" ? -1 : all.length),
        );
        const next = all[now + (event.key === "ArrowRight" ? 1 : -1)];
        if (next !== undefined) describe(next);
        event.preventDefault();
        event.stopPropagation();
      });
    }
    return element("div", {}, body, info);
  }

  function sampleBody(row: number, tree: ViewTree, numbers: Record<string, Numbers>): HTMLElement[] {
    const path = pathTo(tree, columns.segment[row]);
    const segments = path.map((s) => tree.segments[s]);
    const end = segments[segments.length - 1];
    const { reward: _, ...parts } = end.outcome ?? {};
    const scale = tokens.scaleOf(segments, numbers, paint);
    const blocks = segments.map((segment, i) => {
      const children = tree.segments.filter(({ parent }) => parent === path[i]).length;
      const shared = i > 0 && children > 1 ? `, shared by ${children} branches` : "";
      return segment.tokens === 0 && segment.text === ""
        ? undefined
        : element(
            "section",
            { class: "segment", "data-source": segment.source },
            element(
              "h3",
              {},
              `${segment.source}${shared}`,
              element("span", { class: "soft" }, ` ${segment.tokens} tokens`),
            ),
            segmentText(segment, numbers, scale),
          );
    });
    const made = element("div", {});
    const { gold } = head.problems[columns.problem[row]];
    append(
      made,
      gold === undefined ? undefined : element("div", {}, "gold ", element("bdi", { class: "gold" }, gold)),
      element("div", { class: "grades" }, verdict("strict", end.strict) ?? "", verdict("flexible", end.flexible) ?? ""),
      end.error === undefined ? undefined : element("p", { class: "wrong" }, `grading failed: ${end.error}`),
      facts([
        ["reward", end.outcome?.reward === undefined ? undefined : String(end.outcome.reward)],
        ...Object.entries(parts).map(([name, value]): [string, string] => [name, String(value)]),
        ["advantage a token", rounded(columns.advantage[row])],
        ["tokens", String(columns.tokens[row])],
        ["mean log-prob", rounded(columns.logprob[row])],
        ["temperature", end.temperature === undefined ? undefined : String(end.temperature)],
        ["ended", end.stop === "length" ? "cut at the length limit" : end.stop],
      ]),
      paint === "formulas" || paint === "plain" ? undefined : tokens.legend(paint, scale),
      ...blocks,
    );
    return [made];
  }

  /** A tree: its samples in a table, or side by side where two evaluations are compared. */
  function groupBody(row: number, tree: ViewTree, numbers: Record<string, Numbers>): HTMLElement[] {
    const own: number[] = [];
    for (let i = row + 1; i < columns.kind.length && columns.depth[i] > columns.depth[row]; i++) {
      if (
        columns.block[i] === columns.block[row] &&
        columns.tree[i] === columns.tree[row] &&
        columns.kind[i] === kinds.sample
      )
        own.push(i);
    }
    if (head.kind === "comparison") {
      const side = (wanted: number) =>
        element(
          "div",
          { class: "side" },
          element("h3", {}, `${"AB"[wanted]} `, element("bdi", {}, head.sides[wanted])),
          ...own.filter((i) => columns.side[i] === wanted).flatMap((i) => sampleBody(i, tree, numbers)),
        );
      return [element("div", { class: "sides" }, side(0), side(1))];
    }
    const summary = facts([
      ["samples", String(columns.number[row])],
      ["mean reward", rounded(columns.reward[row])],
      ["right", columns.right[row] < 0 ? undefined : `${columns.right[row]} of ${columns.number[row]}`],
      ["group", tree.group],
      ["caused by", tree.cause === undefined ? undefined : `${tree.cause.tree}, segment ${tree.cause.segment}`],
    ]);
    const prompt = tree.segments[0];
    const table = element(
      "table",
      {},
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          ...["sample", "reward", "strict", "tokens", "advantage", "response"].map((name) =>
            element("th", { scope: "col" }, name),
          ),
        ),
      ),
    );
    const body = element("tbody");
    for (const i of own) {
      const end = tree.segments[columns.segment[i]];
      const link = element("button", { type: "button", class: "link" }, String(columns.number[i] + 1));
      link.addEventListener("click", () => go(i));
      const [label, className] = end.strict === undefined ? ["", ""] : labels[end.strict.verdict];
      body.append(
        element(
          "tr",
          {},
          element("td", {}, link),
          element("td", {}, plain(columns.reward[i]) ?? ""),
          element("td", { class: className }, label),
          element("td", {}, String(columns.tokens[i])),
          element("td", {}, rounded(columns.advantage[i]) ?? ""),
          element("td", { class: "cut" }, element("bdi", {}, end.text.slice(-80))),
        ),
      );
    }
    table.append(body);
    const asked =
      prompt.text === ""
        ? undefined
        : element(
            "section",
            { class: "segment", "data-source": prompt.source },
            element("h3", {}, prompt.source, element("span", { class: "soft" }, ` ${prompt.tokens} tokens`)),
            segmentText(prompt, numbers, 0),
          );
    return [summary, ...(asked === undefined ? [] : [asked]), element("div", { class: "wide" }, table)];
  }

  /** Where a row stands: the rows above it, its neighbours, and what it caused. */
  function relatives(row: number): HTMLElement | undefined {
    const link = (other: number, label: string) => {
      const button = element("button", { type: "button", class: "link" }, label);
      button.addEventListener("click", () => go(other));
      return button;
    };
    const above: HTMLElement[] = [];
    for (let up = columns.up[row]; up >= 0; up = columns.up[up]) above.unshift(link(up, title(up)));
    const beneath: HTMLElement[] = [];
    for (let i = row + 1; i < columns.kind.length && columns.depth[i] > columns.depth[row]; i++) {
      if (columns.up[i] === row && (columns.kind[row] !== kinds.group || columns.kind[i] !== kinds.sample))
        beneath.push(link(i, title(i)));
    }
    if (above.length + beneath.length === 0) return undefined;
    const parts = [
      ...(above.length > 0
        ? [element("p", {}, "in ", ...above.flatMap((one, i) => (i === 0 ? [one] : [" › ", one])))]
        : []),
      ...(beneath.length > 0
        ? [
            element(
              "p",
              {},
              columns.kind[row] === kinds.sample ? "goes on in " : "holds ",
              ...beneath.flatMap((one, i) => (i === 0 ? [one] : [", ", one])),
            ),
          ]
        : []),
    ];
    return element("nav", { class: "relatives", "aria-label": "the tree that this belongs to" }, ...parts);
  }

  /** Marks the words that were searched for, which may run over several tokens. */
  function highlight(): void {
    // Older browsers show the text without marks.
    if (!("highlights" in CSS)) return;
    const ranges: Range[] = [];
    for (const box of place.querySelectorAll(".text")) {
      const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
      const nodes: { node: Node; from: number }[] = [];
      let whole = "";
      while (walker.nextNode() !== null) {
        nodes.push({ node: walker.currentNode, from: whole.length });
        whole += walker.currentNode.textContent;
      }
      // A text whose length changes in lower case (as of İ) has other places: it stays unmarked.
      const lower = whole.toLowerCase();
      if (lower.length !== whole.length) continue;
      const place = (at: number) => nodes.findLast(({ from }) => from <= at) ?? nodes[0];
      for (const word of words) {
        for (
          let at = lower.indexOf(word);
          at >= 0 && ranges.length < 1000;
          at = lower.indexOf(word, at + word.length)
        ) {
          const [start, end] = [place(at), place(at + word.length - 1)];
          const range = document.createRange();
          range.setStart(start.node, at - start.from);
          range.setEnd(end.node, at + word.length - end.from);
          ranges.push(range);
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  async function show(row: number): Promise<void> {
    shown = row;
    const block = columns.block[row];
    const [trees, numbers] = await Promise.all([reader.texts(block), reader.numbers(block)]);
    // Another row was chosen meanwhile.
    if (shown !== row) return;
    const tree = trees[columns.tree[row]];
    const group = columns.kind[row] === kinds.group;
    const body = element("div", { class: "body" });
    append(
      body,
      element("h2", { id: "detail-title" }, title(row)),
      relatives(row),
      question(row, tree),
      ...(group ? groupBody(row, tree, numbers) : sampleBody(row, tree, numbers)),
    );
    place.replaceChildren(body);
    place.scrollTop = 0;
    highlight();
  }

  return {
    show,
    /** Words to mark, in lower case. */
    search(next: readonly string[]): void {
      words = next;
      highlight();
    },
    paint(name: string): Promise<void> | undefined {
      paint = name;
      return shown < 0 ? undefined : show(shown);
    },
  };
}

export type Detail = ReturnType<typeof makeDetail>;
