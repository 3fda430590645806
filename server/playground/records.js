// A conversation as the records that the database keeps, and back.

import { allAnswers, allImages, titleOf } from "./conversation.js";
import { withPlaces } from "./earlier.js";

/** The head: everything but the answers and the images, which it names by their ids. */
export function headOf(conversation, revision) {
  const { turns, raw, images, ...rest } = conversation;
  return {
    ...rest,
    title: titleOf(conversation), revision, deleted: false,
    images: ids(images), turns: turns.map(shapeOf), raw: shapeOf(raw),
  };
}

/** Answers of a conversation, and the probabilities of their tokens apart: a search does not read those. */
export function answerRecords(conversation, made) {
  return {
    answers: made.map(({ spans, ...answer }) => ({ ...answer, conversation })),
    spans: made.map(({ id, spans }) => ({ id, conversation, spans })),
  };
}

/** Images of a conversation. */
export function imageRecords(conversation, images) {
  return images.map((image) => ({ ...image, conversation }));
}

/**
 * The conversation of loaded records. Answers without an end get `cut` as the way they ended: what
 * writes them is gone, or is another tab.
 */
export function fromRecords({ head, answers, spans, images }, cut) {
  const { title, revision, deleted, ...conversation } = withPlaces(head);
  const spansById = byId(spans);
  const imagesById = byId(images.map(({ id, url }) => ({ id, url })));
  const answersById = byId(answers.map(({ conversation: _, ...answer }) => ({
    ...answer,
    spans: spansById.get(answer.id)?.spans ?? [],
    finish: answer.finish ?? (answer.error ? null : cut),
  })));
  const turn = (shape) => ({
    ...shape, images: found(shape.images, imagesById),
    answers: shape.answers.map((versions) => found(versions, answersById)),
  });
  return {
    ...conversation, images: found(conversation.images, imagesById),
    turns: conversation.turns.map(turn), raw: turn(conversation.raw),
  };
}

/** All things of a conversation that have a record of their own. */
export function partsOf(conversation) {
  return { answers: allAnswers(conversation), images: allImages(conversation) };
}

const ids = (things) => things.map(({ id }) => id);
const byId = (things) => new Map(things.map((thing) => [thing.id, thing]));
const found = (names, things) => names.map((id) => things.get(id)).filter(Boolean);

function shapeOf(turn) {
  return { ...turn, images: ids(turn.images), answers: turn.answers.map(ids), shown: [...turn.shown] };
}
