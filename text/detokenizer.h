// text/detokenizer.h: token ids to text, one at a time, whole UTF-8 characters only.
// Owner: one sequence. Invariant: the concatenation of everything given out, Flush included, is
// Tokenizer::Decode of all ids, however they were cut into calls.
#pragma once

#include <string>

#include "common/types.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace fathom::router {

class Detokenizer {
 public:
  // REQUIRES: `tokenizer` outlives this.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // Appends to *text what `id` completes. An id that the tokenizer does not have gives nothing: a
  // model's embedding may be padded.
  void Append(TokenId id, std::string* text);
  // The end of the sequence: an incomplete character becomes U+FFFD.
  void Flush(std::string* text) { stream_.Flush(text); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  Utf8Stream stream_;
};

}  // namespace fathom::router
