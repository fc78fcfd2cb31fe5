import { statfsSync } from "node:fs";
import { availableParallelism, cpus, release } from "node:os";
import { rifftVersion } from "../run/environment.ts";
import { library } from "../runtime/library.ts";
import { memory } from "../runtime/index.ts";
import { nodeProtection, pyodideFolder } from "../sandbox/index.ts";
import { selfTests, type TestResult } from "./selftest.ts";

export interface Check {
  name: string;
  ok: boolean;
  detail: string;
  /** What to do about it, where it is not ok. */
  advice?: string;
  /** Of a self-test. */
  seconds?: number;
}

export interface Diagnosis {
  ok: boolean;
  machine: Check[];
  /** Empty where the native library does not load. */
  selfTest: Check[];
}

const GB = 1e9;
/** Below these a small model can hardly be trained. */
const LEAST_MEMORY = 2 * GB;
const LEAST_DISK = 1 * GB;
/** The oldest Node that is supported. */
const OLDEST_NODE = [20, 19];

/** Looks at the machine, then tries the engine for about ten seconds. */
export async function diagnose(onProgress: (text: string) => void = () => {}): Promise<Diagnosis> {
  const machine = machineChecks();
  const selfTest: Check[] = [];
  if (machine.every((check) => check.name !== "native library" || check.ok)) {
    for (const { name, advice, run } of selfTests) {
      onProgress(`self-test: ${name}`);
      const start = performance.now();
      const result = await run().catch((error: unknown): TestResult => ({ ok: false, detail: messageOf(error) }));
      selfTest.push({ name, ...result, ...(result.ok ? {} : { advice }), seconds: (performance.now() - start) / 1000 });
    }
  }
  return { ok: [...machine, ...selfTest].every((check) => check.ok), machine, selfTest };
}

/** What can be told without computing anything. */
export function machineChecks(env: NodeJS.ProcessEnv = process.env, nodeVersion = process.versions.node): Check[] {
  const { total, available } = memory();
  const [processor] = cpus();
  const fact = (name: string, detail: string): Check => ({ name, ok: true, detail });
  return [
    fact("rifft", rifftVersion()),
    checkNode(nodeVersion),
    fact("platform", `${process.platform} ${process.arch}, ${release()}`),
    fact("processor", `${processor?.model.trim() ?? "unknown"}, ${availableParallelism()} threads`),
    checkLibrary(),
    checkPrograms(nodeVersion),
    {
      name: "memory",
      ok: available >= LEAST_MEMORY,
      detail: `${gb(total)} GB, ${gb(available)} GB available`,
      ...(available < LEAST_MEMORY && { advice: "close other programs, or set `memory` in the recipe" }),
    },
    checkDisk(process.cwd()),
    checkToken(env.HF_TOKEN),
  ];
}

function checkNode(version: string): Check {
  const [major, minor] = version.split(".").map(Number);
  const ok = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  return {
    name: "node",
    ok,
    detail: version,
    ...(!ok && { advice: `install Node ${OLDEST_NODE.join(".")} or later` }),
  };
}

/** What runs programs, and what of its protection this Node lacks. */
function checkPrograms(version: string): Check {
  const name = "programs";
  try {
    const folder = pyodideFolder();
    const { weaker } = nodeProtection(version);
    return { name, ok: true, detail: [`Python in WebAssembly, ${folder}`, ...weaker].join("; ") };
  } catch (error) {
    return {
      name,
      ok: false,
      detail: messageOf(error),
      advice: "reinstall with `npm ci`; tasks of text work without it",
    };
  }
}

function checkLibrary(): Check {
  const name = "native library";
  try {
    const { version, path } = library();
    return { name, ok: true, detail: `ONNX Runtime ${version}, ${path}` };
  } catch (error) {
    return {
      name,
      ok: false,
      detail: messageOf(error),
      advice: "reinstall with `npm ci`, or name a library with RIFFT_ORT",
    };
  }
}

function checkDisk(folder: string): Check {
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  const ok = free >= LEAST_DISK;
  return {
    name: "disk",
    ok,
    detail: `${gb(free)} GB free in ${folder}`,
    ...(!ok && { advice: "free some space: a checkpoint of all weights takes twelve bytes a parameter" }),
  };
}

/** Never shows the token itself. */
function checkToken(token: string | undefined): Check {
  const name = "Hub token";
  if (token === undefined || token === "")
    return { name, ok: true, detail: "none (HF_TOKEN is not set; public models need none)" };
  if (token.startsWith("hf_")) return { name, ok: true, detail: "HF_TOKEN is set" };
  return { name, ok: false, detail: 'HF_TOKEN does not begin with "hf_"', advice: "correct or unset HF_TOKEN" };
}

/** A block of text to paste into a report. */
export function formatDiagnosis({ ok, machine, selfTest }: Diagnosis): string {
  const width = Math.max(...[...machine, ...selfTest].map(({ name }) => name.length));
  const line = ({ name, ok, detail, seconds }: Check, shown: string): string =>
    `  ${name.padEnd(width)}  ${ok ? shown : "BROKEN: "}${detail}${seconds === undefined ? "" : ` (${seconds.toFixed(1)} s)`}`;
  const broken = [...machine, ...selfTest].filter((check) => !check.ok);
  return [
    "rifft doctor",
    ...machine.map((check) => line(check, "")),
    selfTest.length > 0 ? "self-test" : "self-test: not run, because the native library does not load",
    ...selfTest.map((check) => line(check, "ok: ")),
    ok ? "everything works" : "what to do",
    ...broken.map(({ name, advice }) => `  ${name}: ${advice ?? ""}`),
  ].join("\n");
}

const gb = (bytes: number): string => (bytes / GB).toFixed(1);

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, " ");
