// text/character_vocabulary.h: vocabularies of characters (SentencePiece's, as in Llama 2).
// tokenizer.json spells a token with U+2581 instead of a space. A character without a token becomes
// its bytes, each a token "<0xNN>". Bytes that are no UTF-8 are decoded with one U+FFFD for each
// maximal invalid part (the Hugging Face library replaces every byte of such a run). In this code,
// texts and tokens have plain spaces; a U+2581 in a text becomes a space too. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/byte_span.h"

namespace fathom {

inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581

struct CharacterVocabulary {
  // Which pieces of text between added tokens get a space before them.
  enum class Prefix {
    kNone,
    kFirst,    // The piece at the start of the text, if it starts with no space.
    kMissing,  // Each piece that starts with no space.
    kEach,
  };
  Prefix prefix = Prefix::kNone;
  bool strips_first_space = false;  // Decoding removes a space at the start of the text.
};

// The bytes of a token, and whether it is one of "<0x00>" to "<0xFF>".
struct CharacterToken {
  std::string bytes;
  bool is_byte = false;
};
CharacterToken ReadCharacterToken(std::string_view spelling);

// Writes one piece of a text in the form of the vocabulary, and where `spans` are in it.
// `at_begin`: the piece is at the start of the text. REQUIRES: as in NormalizeNfc.
void PrepareCharacters(const CharacterVocabulary& vocabulary, std::string_view text, bool at_begin,
                       std::span<const ByteSpan> spans, std::string* out,
                       std::vector<ByteSpan>* out_spans);

}  // namespace fathom
