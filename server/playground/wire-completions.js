// OpenAI's completions: a text is continued.

import { chatFigures } from "./wire-chat.js";
import { completionTokens, spansOf } from "./spans.js";

// The most that completions report.
const LOGPROBS = 5;

export const completions = {
  label: "Completions",
  path: "v1/completions",

  body({ model, prompt, options: { sampling, max_tokens: most, stop } }) {
    const body = { model, prompt, ...sampling };
    if (most !== undefined) body.max_tokens = most;
    if (stop.length) body.stop = stop;
    return body;
  },

  streamed: (body) => ({
    ...body, stream: true, stream_options: { include_usage: true }, logprobs: LOGPROBS,
  }),

  isEnd: () => false,

  read(answer, { choices: [choice], usage }) {
    if (usage) Object.assign(answer.figures, chatFigures(usage));
    if (!choice) return 0;
    const tokens = completionTokens(choice.logprobs);
    answer.content += choice.text;
    answer.spans.push(...spansOf(choice.text, tokens));
    answer.finish = choice.finish_reason ?? answer.finish;
    return choice.text ? Math.max(1, tokens.length) : 0;
  },
};
