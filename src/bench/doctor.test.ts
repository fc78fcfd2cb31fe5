import { describe, expect, test } from "vitest";
import { formatDiagnosis, machineChecks } from "./doctor.ts";
import { selfTests } from "./selftest.ts";

const check = (name: string, env: NodeJS.ProcessEnv = {}, node?: string) =>
  machineChecks(env, node).find((one) => one.name === name);

describe("the machine", () => {
  test("the native library's version and path are named", () => {
    expect(check("native library")).toMatchObject({
      ok: true,
      detail: expect.stringMatching(/ONNX Runtime 1\.\d+.*onnxruntime/),
    });
  });

  test("an old Node is refused, with what to do", () => {
    expect(check("node", {}, "20.18.1")).toMatchObject({ ok: false, advice: "install Node 20.19 or later" });
    expect(check("node", {}, "20.19.0")?.ok).toBe(true);
    expect(check("node", {}, "24.0.0")?.ok).toBe(true);
  });

  test("what runs programs, and what this Node does not protect", () => {
    expect(check("programs")).toMatchObject({ ok: true, detail: expect.stringMatching(/pyodide/) });
    expect(check("programs", {}, "22.0.0")?.detail).toMatch(/does not cover the network/);
  });

  test("a token's presence is told, never the token", () => {
    const secret = { HF_TOKEN: "hf_verysecret" };
    expect(check("Hub token", secret)).toMatchObject({ ok: true, detail: "HF_TOKEN is set" });
    expect(JSON.stringify(machineChecks(secret))).not.toContain("verysecret");
    const wrong = check("Hub token", { HF_TOKEN: "verysecret" });
    expect(wrong?.ok).toBe(false);
    expect(JSON.stringify(wrong)).not.toContain("verysecret");
    expect(check("Hub token")?.ok).toBe(true);
  });
});

test.each(selfTests.filter(({ name }) => name !== "floors"))("self-test: $name", async ({ run }) => {
  expect(await run()).toMatchObject({ ok: true });
});

test("the block names what is broken and what to do", () => {
  const text = formatDiagnosis({
    ok: false,
    machine: [{ name: "node", ok: false, detail: "18.0.0", advice: "install Node 20.19 or later" }],
    selfTest: [{ name: "gradients", ok: true, detail: "21 tensors", seconds: 0.21 }],
  });
  expect(text.split("\n")).toEqual([
    "rifft doctor",
    "  node       BROKEN: 18.0.0",
    "self-test",
    "  gradients  ok: 21 tensors (0.2 s)",
    "what to do",
    "  node: install Node 20.19 or later",
  ]);
});
