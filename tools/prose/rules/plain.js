// A rule of textlint: plain technical English, as CONTRIBUTING.md asks for. Code, tables and headings are left out.
'use strict';

const WORDS_MAX = 60;

// Phrases with the words that say the same in the usual way.
const PHRASES = [
  [/\b(?:go|goes|going|went) on\b(?! (?:TCP|port|the|a|this))/i, 'continue'],
  [/\banew\b/i, 'again'],
  [/\bwhoever\b/i, 'the noun'],
  [/\b(?:is|are|was|were) had\b/i, 'the verb in the active voice'],
  [/\bin order to\b/i, 'to'],
  [/\butili[sz]e[sd]?\b/i, 'use'],
  [/\b(?:obviously|of course|needless to say)\b/i, 'nothing'],
  [/\b(?:thereof|wherein|whereof|herein|therein|hereby)\b/i, 'the noun'],
  [/\bas yet\b/i, 'yet'],
];

// A clause in the place of the subject, in a sentence that is no question and no label.
const CLAUSE = /^(?:What|Whatever|Who|Whose|Whichever) [^?]*[^?:]$/;

// A paragraph whose subject is in the paragraph before it.
const PRONOUN = /^(?:It|They|Those|The same|This is|These are|One (?:of|is|has|that))\b/;

const REPEATED = /\b([a-z]+) \1\b/;
// Pairs that are right.
const REPEATABLE = new Set(['that', 'had']);

// The text of a paragraph, with a noun in the place of code.
function textOf(node) {
  if (node.type === 'Code' || node.type === 'Html') return 'X';
  if (node.type === 'Break') return ' ';
  if (node.type === 'Image') return '';
  // A label in bold type is no sentence.
  if (node.type === 'Strong') return node.children.map(textOf).join('').replace(/\.$/, ':');
  return node.children ? node.children.map(textOf).join('') : node.value || '';
}

function sentencesOf(text) {
  return text.split(/(?<=[.!?]) +(?=[A-Z]|aedes|rmqtt|rumqttd)|(?<=[:;]) +/).map((sentence) => sentence.trim());
}

function complaints(text) {
  const found = [];
  const begin = PRONOUN.exec(text);
  if (begin) found.push(`a paragraph begins with "${begin[0]}": begin with the noun`);
  for (const sentence of sentencesOf(text)) {
    const start = sentence.split(' ').slice(0, 5).join(' ');
    if (CLAUSE.test(sentence)) found.push(`"${start} …": a clause is the subject; begin with a noun`);
    for (const [phrase, instead] of PHRASES) {
      const match = phrase.exec(sentence);
      if (match) found.push(`"${match[0]}": write ${instead}`);
    }
    const repeated = REPEATED.exec(sentence);
    if (repeated && !REPEATABLE.has(repeated[1])) found.push(`"${repeated[0]}": the word is there twice`);
    const words = sentence.split(' ').filter((word) => !/^X\W*$/.test(word)).length;
    if (words > WORDS_MAX) found.push(`"${start} …": ${words} words in a sentence, more than ${WORDS_MAX}`);
  }
  return found;
}

module.exports = (context) => {
  const { Syntax, RuleError, report } = context;
  return {
    [Syntax.Paragraph](node) {
      const text = textOf(node).replace(/\s+/g, ' ').trim();
      for (const complaint of complaints(text)) report(node, new RuleError(complaint));
    },
  };
};
