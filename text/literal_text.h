// text/literal_text.h: user text is not markup. Carries "this is no special token" through a
// chat template. Before rendering, Mark puts the noncharacter U+FDD0 behind the first character of
// whatever in a client's value could become an added token: each occurrence, and what could be
// completed across the value's borders. After rendering, TakeMarks removes the marks; the character
// before each is a literal span, and Encode lets no added token touch it. Everything else of the
// value stays as it is, so templates strip, split and compare it as they would without; a mark
// never stands alone, so none of this can unbalance anything. A client's own U+FDD0 and U+FDD1 are
// escaped with U+FDD1 and come out unchanged: every string of a client that reaches a template goes
// through Mark or Escape. Templates must not contain the two (HasMarks). Thread: constant after
// construction.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/tokenizer.h"

namespace fathom::router {

// A rendering without marks, and where no added token may be matched.
struct MarkedText {
  std::string text;
  std::vector<ByteSpan> literal_spans;  // Ascending, disjoint; as EncodeOptions wants them.
};

class LiteralText {
 public:
  // Copies what it needs of the tokenizer.
  explicit LiteralText(const Tokenizer& tokenizer);

  // A value whose text is only text (content of system, user and tool messages).
  std::string Mark(std::string_view value) const;
  // A value that may hold special tokens (allow_special_in_content; content of assistant messages).
  static std::string Escape(std::string_view value);
  static MarkedText TakeMarks(std::string_view rendered);
  static bool HasMarks(std::string_view text);

 private:
  ByteTrie tokens_;        // Texts of all added tokens,
  ByteTrie ends_;          // and what is left of them from any later character on.
  bool mark_all_ = false;  // Normalization may make a token out of other characters.
};

}  // namespace fathom::router
