import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { hashKey } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import { DATA_EXTENSIONS } from "./read.ts";

/** Where a published data set is looked for, and what to say when it is not there. */
export interface DatasetPlace {
  /** The task's name, also ReFT's prefix: `gsm8k_test_set.json`. */
  name: string;
  /** Its name on the Hugging Face Hub. */
  hub: string;
  /** Other names that its folder may have. */
  folders?: string[];
  /** File names (without extension) of a split in order of preference, where they are not the split's own name. */
  files?: { train?: string[]; test?: string[] };
  /** Folders within, in order of preference, beside the folder itself, `main`, `default` and `data`. */
  within?: string[];
  /** There is nothing to train on: every file is test data. */
  testOnly?: boolean;
}

/**
 * The folder or file of a data set: `path` (relative to `baseDir`) where given, else the first that exists of `data/<name>`, beside the
 * recipe or in the working directory, and `$RIFFT_DATA/<name>`; <name> is also tried as the Hub writes it.
 */
export function findDataset(place: DatasetPlace, path: string | undefined, baseDir: string): string {
  const get = `get it with \`rifft pull ${place.hub}\`, or set task.path to its folder`;
  if (path !== undefined) {
    const full = resolve(baseDir, path);
    if (existsSync(full)) return full;
    throw new UserError(`${full}: no such folder or file (task.path of ${place.name}); ${get}`);
  }
  const roots = [resolve(baseDir, "data"), resolve("data")];
  if (process.env.RIFFT_DATA) roots.push(resolve(process.env.RIFFT_DATA));
  const names = new Set([place.name, ...(place.folders ?? []), basename(place.hub), place.hub]);
  for (const root of new Set(roots)) {
    for (const name of names) if (existsSync(join(root, name))) return join(root, name);
  }
  const looked = [...new Set(roots)].map((root) => join(root, place.name)).join(", ");
  throw new UserError(`the data of ${place.name} is not here (looked for ${looked}); ${get}`);
}

/**
 * The files of one split. In a folder: `<split>.jsonl`, `.json`, `.csv` or `.parquet`; the Hub's `<split>-00000-of-00001.parquet`; ReFT's
 * `<name>_nl.json` (train) and `<name>_test_set.json` (test); in the folder itself, else in its `main`, `default` or `data` folder.
 * A file serves as `test` where its name contains "test" or there is only test data, else as `train`. Undefined where there is none.
 */
export function splitFiles(place: DatasetPlace, at: string, split: "train" | "test"): string[] | undefined {
  if (place.testOnly === true && split === "train") return undefined;
  if (!statSync(at).isDirectory()) {
    const isTest = place.testOnly === true || /test/i.test(basename(at));
    return isTest === (split === "test") ? [at] : undefined;
  }
  const stems = [...(place.files?.[split] ?? []), split];
  const reft = `${place.name}_${split === "train" ? "nl" : "test_set"}.json`;
  for (const folder of [".", ...(place.within ?? []), "main", "default", "data"].map((name) => join(at, name))) {
    if (!existsSync(folder) || !statSync(folder).isDirectory()) continue;
    const names = readdirSync(folder).sort();
    for (const stem of stems) {
      const plain = DATA_EXTENSIONS.map((extension) => stem + extension).find((name) => names.includes(name));
      if (plain !== undefined) return [join(folder, plain)];
      const shards = shardsOf(place, folder, names, stem);
      if (shards !== undefined) return shards;
    }
    if (names.includes(reft)) return [join(folder, reft)];
  }
  return undefined;
}

function shardsOf(place: DatasetPlace, folder: string, names: string[], stem: string): string[] | undefined {
  const shards = names.filter(
    (name) => name.startsWith(stem) && /^-\d+-of-\d+.*\.parquet$/.test(name.slice(stem.length)),
  );
  if (shards.length === 0) return undefined;
  const expected = Number(/-of-(\d+)/.exec(shards[0])?.[1]);
  if (shards.length !== expected) {
    throw new UserError(`${folder}: ${shards.length} of ${expected} ${stem} files are here; pull ${place.hub} again`);
  }
  return shards.map((name) => join(folder, name));
}

/** The message where `splitFiles` found nothing. */
export function noSplit(place: DatasetPlace, at: string, split: "train" | "test"): UserError {
  const folder = statSync(at).isDirectory() ? at : dirname(at);
  const stem = place.files?.[split]?.[0] ?? split;
  return new UserError(
    `${at}: no ${split} data here; expected ${stem}.jsonl, ${stem}.json, ${stem}.csv, ${stem}.parquet or the Hub's ${stem}-00000-of-00001.parquet in ${folder} (or its main/ or data/ folder)`,
  );
}

/** The same for questions that differ only in letter case and blanks. */
export function questionKey(question: string): string {
  return question.toLowerCase().replace(/\s+/g, " ").trim();
}

/** A number in [0, 1) that depends on the text alone. Decides which split a question belongs to, whatever the seed. */
export function share(text: string): number {
  return hashKey(text)[0] / 2 ** 32;
}

/**
 * Which training questions are held out as dev: `dev` is a share below 1, or how many. Equal questions are always on one side, so that
 * a number may be passed by the copies of the last.
 */
export function heldOut(questions: string[], dev: number): Set<string> {
  const copies = new Map<string, number>();
  for (const question of questions) {
    const key = questionKey(question);
    copies.set(key, (copies.get(key) ?? 0) + 1);
  }
  if (dev < 1) return new Set([...copies.keys()].filter((key) => share(key) < dev));
  const held = new Set<string>();
  let count = 0;
  // Of equal shares, whose texts differ, the order decides.
  const byShare = [...copies.keys()].sort((a, b) => share(a) - share(b) || (a < b ? -1 : 1));
  for (const key of byShare) {
    if (count >= dev) break;
    held.add(key);
    count += copies.get(key) ?? 0;
  }
  return held;
}
