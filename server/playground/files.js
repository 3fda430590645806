// A conversation as a file's text, and back: whatever a file holds, only what is known is taken.

import { allAnswers, newCall, newConversation, newId, newImage, newTurn } from "./conversation.js";
import { withPlaces } from "./earlier.js";
import { SETTINGS, newSettings } from "./settings.js";
import { isApi } from "./wires.js";

const FORMAT = "dragoman-session";
const VERSION = 3;
const VIEWS = ["formatted", "text", "tokens"];
const FINISHES = ["stop", "length", "tool_calls", "content_filter", "stopped", "edited"];

/** The conversation as a file's text; keys are never in it. */
export function toFile(conversation) {
  return JSON.stringify({ format: FORMAT, version: VERSION, ...conversation }, null, 1);
}

/** The conversation of a file's text; throws an Error that says what is wrong with it. */
export function fromFile(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (read?.format !== FORMAT) throw new Error("The file is not a session of this playground.");
  if (![1, 2, VERSION].includes(read.version)) {
    throw new Error(`Sessions of version ${read.version} are unknown.`);
  }
  const conversation = newConversation();
  conversation.mode = read.mode === "raw" ? "raw" : "chat";
  conversation.name = string(read.name);
  conversation.draft = string(read.draft);
  conversation.text = string(read.text);
  if (read.version === 1) addSession(conversation, read);
  else addConversation(conversation, withPlaces({ ...read, turns: list(read.turns).filter(Boolean) }));
  for (const answer of allAnswers(conversation)) answer.finish ??= answer.error ? null : "cut";
  return conversation;
}

function addConversation(conversation, read) {
  conversation.isLinked = read.isLinked !== false;
  conversation.hasSecond = read.hasSecond !== false;
  conversation.images = images(read.images);
  conversation.panes.forEach((pane, index) => {
    const given = list(read.panes)[index];
    pane.model = string(given?.model);
    if (given?.settings || index === 0) pane.settings = settingsOf(given?.settings);
  });
  // Every turn gets a new id, and comes after its parents: so no circle can be made.
  const ids = new Map([[null, null]]);
  const answerIds = new Map();
  for (const each of read.turns) {
    const places = conversation.panes.map((_, pane) => {
      const place = list(each.places)[pane];
      if (!place || !ids.has(place.parent ?? null)) return null;
      return { parent: ids.get(place.parent ?? null), after: answerIds.get(place.after) ?? null };
    });
    if (!places.some(Boolean)) continue;
    const turn = turnOf(each, places, answerIds);
    ids.set(string(each.id), turn.id);
    conversation.turns.push(turn);
  }
  conversation.chosen = conversation.panes.map((_, pane) => Object.fromEntries(
    Object.entries(list(read.chosen)[pane] ?? {})
      .map(([above, below]) => [ids.get(above || null) ?? "", ids.get(below)])
      .filter(([, below]) => below)));
  conversation.raw = turnOf(read.raw, [null, null]);
}

/** A session of version 1: one line of turns, one answer each, settings for both panes. */
function addSession(conversation, read) {
  conversation.images = images(read.images);
  conversation.panes.forEach((pane, index) => { pane.model = string(list(read.panes)[index]?.model); });
  conversation.panes[0].settings = settingsOf(read.settings);
  let parent = null;
  list(read.prompts).forEach((prompt, at) => {
    const answers = list(read.panes).map((pane) => [list(pane?.answers)[at]].filter(Boolean)
      .map((answer) => ({ model: pane.model, ...answer })));
    const place = { parent, after: null };
    const turn = turnOf({ prompt, images: list(read.turnImages)[at], answers }, [place, place]);
    conversation.turns.push(turn);
    parent = turn.id;
  });
  conversation.raw = turnOf({ answers: list(read.panes).map((pane) =>
    [pane?.completion].filter(Boolean).map((answer) => ({ model: pane.model, ...answer }))) }, [null, null]);
}

/** A turn of a file; `answerIds` gets the new ids of its answers by those in the file. */
function turnOf(read, places, answerIds = new Map()) {
  const prompt = (read?.prompt ?? null) === null ? null : string(read.prompt);
  const turn = newTurn(places, prompt, images(read?.images));
  turn.answers = turn.answers.map((_, pane) =>
    list(list(read?.answers)[pane]).filter(Boolean).map((given) => {
      const answer = answerOf(given);
      if (string(given.id)) answerIds.set(given.id, answer.id);
      return answer;
    }));
  turn.shown = turn.answers.map(({ length }, pane) => {
    const given = list(read?.shown)[pane];
    return Number.isInteger(given) && given >= 0 && given < length ? given : Math.max(0, length - 1);
  });
  return turn;
}

function answerOf(read) {
  return {
    id: newId(),
    model: string(read.model),
    api: isApi(read.api) ? read.api : "",
    view: VIEWS.includes(read.view) ? read.view : undefined,
    settings: Object.fromEntries(SETTINGS.map((name) => [name, string(read.settings?.[name])])
      .filter(([, value]) => value)),
    prompt: string(read.prompt),
    content: string(read.content),
    reasoning: string(read.reasoning),
    signature: string(read.signature),
    calls: list(read.calls).map((call) => ({
      ...newCall({ id: string(call?.id), name: string(call?.name), kind: call?.kind }),
      arguments: string(call?.arguments),
      result: string(call?.result),
    })),
    spans: list(read.spans).map((span) => ({
      text: string(span?.text),
      tokens: list(span?.tokens).map((token) => ({
        text: string(token?.text),
        logprob: number(token?.logprob),
        top: list(token?.top).map((pair) => [string(pair?.[0]), number(pair?.[1])]),
      })),
    })),
    finish: FINISHES.includes(read.finish) ? read.finish : null,
    error: read.error ? string(read.error) : null,
    notes: list(read.notes).map(string),
    figures: Object.fromEntries(
      Object.entries(read.figures ?? {}).filter(([, value]) => Number.isFinite(value)),
    ),
  };
}

function settingsOf(read) {
  return Object.fromEntries(Object.entries(newSettings()).map(([name, usual]) =>
    [name, typeof read?.[name] === "string" ? read[name] : usual]));
}

/** Images of a file: nothing that a browser would fetch or run. */
function images(value) {
  const image = /^data:image\/(png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/=]+$/;
  return list(value).map((each) => (typeof each === "string" ? each : string(each?.url)))
    .filter((url) => image.test(url)).map(newImage);
}

const string = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);
