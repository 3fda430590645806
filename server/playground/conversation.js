// A conversation as data: the turns, the versions of each answer, and which of them are shown.

const NAME_LENGTH = 60;
const PANES = [0, 1];

/** A name that no other thing has; crypto.randomUUID exists only with TLS or on this machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * An empty conversation of two panes.
 *
 * `turns` make a tree in each pane, since its answers decide what follows: `places` of a turn has one place
 * for each pane. `chosen` has, for each pane, the id of the turn that is shown below another ("" for the
 * first), if it comes after what is shown of that. `raw` holds the completions of raw mode.
 */
export function newConversation() {
  const now = Date.now();
  return {
    id: newId(), name: "", created: now, updated: now,
    mode: "chat", draft: "", text: "", images: [],
    isLinked: true, hasSecond: true, panes: [newPane(), newPane()],
    turns: [], chosen: [{}, {}], raw: newTurn([null, null], null),
  };
}

/** `settings` are null as long as they never differed from the other pane's. */
function newPane() {
  return { model: "", settings: null };
}

/**
 * A turn without answers; `prompt` is null where results of tools take its place.
 *
 * A place is {parent, after}: the ids of the turn above, null for a first one, and of that turn's answer
 * that it follows, null where there was none. It is null in a pane that does not have the turn.
 */
export function newTurn(places, prompt, images = []) {
  return { id: newId(), places, prompt, images, answers: [[], []], shown: [0, 0] };
}

/** An image of a data URI. */
export function newImage(url) {
  return { id: newId(), url };
}

/**
 * An answer before its first token.
 *
 * `source` is what gives it, {model, api, settings}, and the `view` it is shown in; `prompt` is the text
 * that a completion continues. `finish` is null until it ends.
 */
export function newAnswer(source, prompt = "") {
  return {
    id: newId(), ...source, prompt, content: "", reasoning: "", signature: "", calls: [], spans: [],
    finish: null, error: null, notes: [], figures: {},
  };
}

/** A call of a tool before its arguments; `result` is what the person types. */
export function newCall({ id, name, kind }) {
  return { id, name, kind: kind === "custom" ? kind : "function", arguments: "", result: "" };
}

/** The turns that a pane shows, first to last. */
export function pathOf({ turns, chosen }, pane) {
  const below = Map.groupBy(turns.filter(({ places }) => places[pane]), ({ places }) => places[pane].parent);
  const path = [];
  for (;;) {
    const above = path.at(-1);
    const branches = following(below.get(above?.id ?? null) ?? [], above, pane);
    const turn = branches.find(({ id }) => id === chosen[pane][above?.id ?? ""]) ?? branches.at(-1);
    if (!turn) return path;
    path.push(turn);
  }
}

/** Those of `turns`, all below `above`, that come after the version of its answer that the pane shows. */
function following(turns, above, pane) {
  return turns.filter(({ places }) => {
    // What an earlier page kept does not say after which; and a failed answer gives way to another.
    const version = above?.answers[pane].find(({ id }) => id === places[pane].after);
    return !version || version === shownAnswer(above, pane);
  });
}

/** The turns that begin other branches at the place of `turn` in a pane, itself included. */
export function branchesOf({ turns }, turn, pane) {
  const { parent } = turn.places[pane];
  const above = turns.find(({ id }) => id === parent);
  return following(turns.filter(({ places }) => places[pane]?.parent === parent), above, pane);
}

/** Show the branch of `turn`, in all panes that have it. */
export function chooseBranch({ chosen }, turn) {
  turn.places.forEach((place, pane) => { if (place) chosen[pane][place.parent ?? ""] = turn.id; });
}

/** The places at the end of what the panes show. */
export function endPlaces(conversation) {
  return PANES.map((pane) => {
    const last = pathOf(conversation, pane).at(-1);
    return { parent: last?.id ?? null, after: shownAnswer(last, pane)?.id ?? null };
  });
}

/** The places of a turn beside `turn`, in the panes that show it. */
export function placesBeside(conversation, turn) {
  return PANES.map((pane) => (pathOf(conversation, pane).includes(turn) ? turn.places[pane] : null));
}

/** Add a turn at `places`, and show it. */
export function addTurn(conversation, places, prompt, images) {
  const turn = newTurn(places, prompt, images);
  conversation.turns.push(turn);
  chooseBranch(conversation, turn);
  return turn;
}

/** Take away `turn` and all that follows it from the panes that show it; a branch beside it is shown then. */
export function removeTurn(conversation, turn) {
  const panes = PANES.filter((pane) => pathOf(conversation, pane).includes(turn));
  for (const pane of panes) removeFrom(conversation, turn, pane);
}

function removeFrom(conversation, turn, pane) {
  const { turns, chosen } = conversation;
  const { parent } = turn.places[pane];
  const branches = branchesOf(conversation, turn, pane);
  const at = branches.indexOf(turn);
  const next = branches[at - 1] ?? branches[at + 1];
  const gone = new Set([turn.id]);
  // Parents come before what follows them.
  for (const each of turns) {
    if (each !== turn && !gone.has(each.places[pane]?.parent)) continue;
    gone.add(each.id);
    each.places = each.places.with(pane, null);
    each.answers[pane] = [];
    delete chosen[pane][each.id];
  }
  conversation.turns = turns.filter(({ places }) => places.some(Boolean));
  if (next) chosen[pane][parent ?? ""] = next.id;
  else if (chosen[pane][parent ?? ""] === turn.id) delete chosen[pane][parent ?? ""];
}

/** The version of a pane's answer that is shown, if there is one. */
export function shownAnswer(turn, pane) {
  return turn?.answers[pane][turn.shown[pane]];
}

/** Add a version of a pane's answer and show it. */
export function addAnswer(turn, pane, answer) {
  turn.answers[pane].push(answer);
  turn.shown[pane] = turn.answers[pane].length - 1;
}

/** Put `answer` in the place of the version of a pane's answer that is shown. */
export function replaceAnswer(turn, pane, answer) {
  turn.answers[pane][turn.shown[pane]] = answer;
}

/** Take away the version of a pane's answer that is shown, and all that follows it in the pane. */
export function removeAnswer(conversation, turn, pane) {
  const { id } = shownAnswer(turn, pane);
  const follow = conversation.turns.filter(({ places }) =>
    places[pane]?.parent === turn.id && places[pane].after === id);
  for (const each of follow) removeFrom(conversation, each, pane);
  turn.answers[pane].splice(turn.shown[pane], 1);
  turn.shown[pane] = Math.max(0, turn.shown[pane] - 1);
}

/** Whether results of a pane's calls in `turn`, which the pane shows, are yet to be sent. */
export function awaitsResults(conversation, turn, pane) {
  const last = pathOf(conversation, pane).at(-1);
  // The other pane's may have been sent before.
  const isBegun = last.places[pane].parent === turn.id && last.prompt === null && !shownAnswer(last, pane);
  return shownAnswer(turn, pane).calls.length > 0 && (last === turn || isBegun);
}

/** Whether all results of an answer's calls were typed. */
export function hasResults(answer) {
  return Boolean(answer?.calls.length) && answer.calls.every(({ result }) => result.trim());
}

/** All answers of all branches and panes. */
export function allAnswers({ turns, raw }) {
  return [...turns, raw].flatMap((turn) => turn.answers.flat());
}

/** All images, the draft's included. */
export function allImages({ turns, images }) {
  return [...turns.flatMap((turn) => turn.images), ...images];
}

/** The settings of a pane. */
export function settingsOf({ panes, isLinked }, index) {
  return (isLinked ? null : panes[index].settings) ?? panes[0].settings;
}

/** Whether there is anything to send that was not sent yet. */
export function hasDraft({ draft, images }) {
  return draft.trim() !== "" || images.length > 0;
}

/** Whether nothing in it is worth keeping. */
export function isBlank(conversation) {
  return !conversation.turns.length && !conversation.name && !conversation.text
    && !conversation.raw.answers.flat().length && !hasDraft(conversation);
}

/** Its name: the one it was given, or the first words of it. */
export function titleOf({ name, turns, draft, text }) {
  if (name) return name;
  const said = [...turns.map(({ prompt }) => prompt), draft, text].find((each) => each?.trim());
  const words = (said ?? "").trim().replace(/\s+/g, " ");
  if (words.length <= NAME_LENGTH) return words || (turns.length ? "Image" : "New conversation");
  return `${words.slice(0, NAME_LENGTH).replace(/\s\S*$/, "")}…`;
}
