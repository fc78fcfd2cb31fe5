import { createServer } from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { HttpProcessReward, type ProcessState, processRewardSettings, shepherdInput } from "./process-reward.ts";

const states: ProcessState[] = [
  {
    question: "1 + 1?",
    steps: [
      { fn: "analysis", text: "Add." },
      { fn: "output", text: "2" },
    ],
  },
  { question: "2 + 2?", steps: [] },
  { question: "3 + 3?", steps: [{ fn: "next_step", text: "6" }] },
];

const open: (() => void)[] = [];
afterEach(() => open.splice(0).forEach((close) => close()));

/** A server whose answers are given in turn, the last again and again. `undefined`: never answers. */
async function serve(...answers: ({ status?: number; body: string } | undefined)[]) {
  const asked: unknown[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
      const answer = answers[Math.min(asked.push(JSON.parse(body)), answers.length) - 1];
      if (answer !== undefined) response.writeHead(answer.status ?? 200).end(answer.body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  open.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = z.object({ port: z.number() }).parse(server.address());
  return { url: `http://127.0.0.1:${port}/score`, asked };
}

const judge = (url: string, more: object = {}) =>
  new HttpProcessReward(processRewardSettings.parse({ url, retries: 1, ...more }));
const right = { body: JSON.stringify({ scores: [[0.2, 0.9], [0.5]] }) };

test("one score a step; a state without steps is not asked about", async () => {
  const { url, asked } = await serve(right);
  const model = judge(url);
  expect(await model.score(states)).toEqual([[0.2, 0.9], [], [0.5]]);
  expect(asked).toEqual([
    {
      states: [
        {
          question: "1 + 1?",
          steps: [
            { function: "analysis", text: "Add." },
            { function: "output", text: "2" },
          ],
        },
        { question: "3 + 3?", steps: [{ function: "next_step", text: "6" }] },
      ],
    },
  ]);
  expect(model.counts).toEqual({ requests: 1, states: 2, slow: 0, down: 0, garbage: 0 });
});

test("Math-Shepherd's way: one text a request", async () => {
  const { url, asked } = await serve({ body: '{"score": [0.1, 0.2]}' });
  expect(await judge(url, { format: "math-shepherd" }).score([states[0]])).toEqual([[0.1, 0.2]]);
  expect(asked).toEqual([{ input: "1 + 1? Step 1: Add. ки\nStep 2: 2 ки" }]);
  expect(shepherdInput(states[2])).toBe("3 + 3? Step 1: 6 ки");
});

describe("a server that", () => {
  test("is down is tried again, then named with what to do", async () => {
    const { url } = await serve(right);
    open.splice(0).forEach((close) => close());
    const model = judge(url);
    await expect(model.score(states)).rejects.toThrow(
      /^process reward server http.*: cannot be reached: .*ECONNREFUSED.*start it.*\(2 tries\)$/,
    );
    expect(model.counts).toMatchObject({ requests: 2, down: 2 });
  });

  test("is slow is given its time, then named", async () => {
    const { url } = await serve(undefined);
    const model = judge(url, { timeout: 0.05 });
    await expect(model.score(states)).rejects.toThrow(
      /no answer within 0.05 s; raise `timeout` or lower `batch` \(2 tries\)/,
    );
    expect(model.counts).toMatchObject({ slow: 2 });
  });

  test("comes back is used, and what failed is counted", async () => {
    const { url } = await serve({ status: 503, body: "loading" }, right);
    const model = judge(url);
    expect(await model.score(states)).toEqual([[0.2, 0.9], [], [0.5]]);
    expect(model.counts).toMatchObject({ requests: 2, garbage: 1 });
  });

  test("refuses the request is not asked again", async () => {
    const { url, asked } = await serve({ status: 404, body: "no such page" });
    await expect(judge(url).score(states)).rejects.toThrow(/expected status 200, found 404: no such page$/);
    expect(asked).toHaveLength(1);
  });

  test.each([
    ["<html>", /expected JSON, found <html>/],
    ["", /expected JSON, found an empty answer/],
    ['{"score": [1]}', /expected \{"scores": \[\[...\], ...\]\}|`scores`/],
    ['{"scores": [[0.2, 0.9]]}', /expected `scores` with 2 lists, one for each state, found 1/],
    ['{"scores": [[0.2], [0.5]]}', /expected 2 scores for state 0, one for each step, found 1/],
    ['{"scores": [[0.2, 1.5], [0.5]]}', /`scores.0.1`: expected a number from 0 to 1, found .*1\.5/],
    ['{"scores": [[0.2, null], [0.5]]}', /`scores.0.1`: expected a number from 0 to 1/],
  ])("answers %s is told what was expected", async (body, message) => {
    const { url } = await serve({ body });
    const model = judge(url, { retries: 0 });
    await expect(model.score(states)).rejects.toThrow(message);
    expect(model.counts).toMatchObject({ requests: 1, garbage: 1, states: 0 });
  });
});

test("an address that is none is refused with an example", () => {
  expect(processRewardSettings.safeParse({ url: "localhost" }).error?.issues[0].message).toMatch(/such as http:/);
});
