import type { Columns, KINDS } from "../columns.ts";

/** What the reader of the page asks for. */
export interface Query {
  /** All of them must occur in the question or the response; lower case. */
  words: string[];
  /** Index into `places`; -1: all steps. */
  place: number;
  /** Bounds of the reward; NaN: none. */
  low: number;
  high: number;
  verdict: "all" | "right" | "wrong" | "unsure" | "differ" | "error";
  stop: "all" | "cut" | "ended";
  flip: "all" | "flipped" | "first" | "second";
  /** `order` is that of the run, as a tree. */
  sort: "order" | "reward" | "tokens" | "logprob" | "advantage";
  down: boolean;
}

/** Chooses and orders rows. `texts`: of each row, `questions`: of each problem; both lower case. */
export function makeSelect(
  columns: Columns,
  kinds: typeof KINDS,
  texts: readonly string[],
  questions: readonly string[],
) {
  const { kind, place, problem, reward, strict, flexible, error, stop, flip, up } = columns;
  const size = kind.length;
  // Indices into VERDICTS and STOPS.
  const [EQUAL, UNSURE, LENGTH] = [1, 3, 3];

  function holds(query: Query, i: number): boolean {
    if (query.place >= 0 && place[i] !== query.place) return false;
    if (reward[i] < query.low || reward[i] > query.high) return false;
    if (Number.isNaN(reward[i]) && !(Number.isNaN(query.low) && Number.isNaN(query.high))) return false;
    if (query.stop !== "all" && (stop[i] === LENGTH) !== (query.stop === "cut")) return false;
    if (query.flip === "flipped" ? flip[i] === 0 : query.flip === "first" ? flip[i] !== 1 : query.flip === "second" && flip[i] !== 2) return false; // prettier-ignore
    switch (query.verdict) {
      case "all":
        return true;
      case "right":
        return strict[i] === EQUAL;
      case "wrong":
        return strict[i] > EQUAL;
      case "unsure":
        return strict[i] === UNSURE || flexible[i] === UNSURE;
      case "differ":
        return flexible[i] > 0 && strict[i] !== flexible[i];
      case "error":
        return error[i] === 1;
    }
  }

  /** How many samples are chosen, and the rows to show: with the rows above them where the order is the run's. */
  return function select(query: Query): { rows: Int32Array<ArrayBuffer>; samples: number } {
    const { words, sort, down } = query;
    // Whether a problem's question has each word, once a problem.
    const asked = words.map((word) => Uint8Array.from(questions, (question) => Number(question.includes(word))));
    const chosen = new Uint8Array(size);
    let samples = 0;
    for (let i = 0; i < size; i++) {
      if (kind[i] !== kinds.sample || !holds(query, i)) continue;
      let found = true;
      for (let w = 0; w < words.length && found; w++) found = asked[w][problem[i]] === 1 || texts[i].includes(words[w]);
      if (!found) continue;
      samples++;
      chosen[i] = 1;
      if (sort === "order")
        for (let above = up[i]; above >= 0 && chosen[above] === 0; above = up[above]) chosen[above] = 1;
    }
    let count = 0;
    for (let i = 0; i < size; i++) count += chosen[i];
    const rows = new Int32Array(count);
    for (let i = 0, at = 0; i < size; i++) if (chosen[i] === 1) rows[at++] = i;
    if (sort === "order") return { rows: down ? rows.reverse() : rows, samples };
    const key = columns[sort];
    const sign = down ? -1 : 1;
    // What has no number comes last either way.
    const rank = (i: number) => (Number.isNaN(key[i]) ? Infinity : sign * key[i]);
    return { rows: rows.sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) < rank(b) ? -1 : 1)), samples };
  };
}
