// text/character_vocabulary.h: vocabularies of characters (SentencePiece's, as Llama 2 has them).
// A token is spelled with U+2581 in the place of a space; a character that no token has becomes its
// bytes, each a token "<0xNN>" (those that are no UTF-8 are decoded as everywhere, each maximal
// invalid part as U+FFFD, where Hugging Face's library replaces every byte of such a run). Here a
// text and the tokens have plain spaces instead: U+2581 of a text is one as well. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/byte_span.h"

namespace fathom::router {

inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581

struct CharacterVocabulary {
  // Which stretches between added tokens get a space before them.
  enum class Prefix {
    kNone,
    kFirst,    // The one at the text's begin, if it begins with no space.
    kMissing,  // Each that begins with no space.
    kEach,
  };
  Prefix prefix = Prefix::kNone;
  bool strips_first_space = false;  // A decoded text loses the space that it begins with.
};

// The bytes that a token stands for, and whether it is one of "<0x00>" to "<0xFF>".
struct CharacterToken {
  std::string bytes;
  bool is_byte = false;
};
CharacterToken ReadCharacterToken(std::string_view spelling);

// One stretch of a text as the vocabulary has it, and where `spans` are in it. `at_begin`: of the
// text. REQUIRES: as NormalizeNfc.
void PrepareCharacters(const CharacterVocabulary& vocabulary, std::string_view text, bool at_begin,
                       std::span<const ByteSpan> spans, std::string* out,
                       std::vector<ByteSpan>* out_spans);

}  // namespace fathom::router
