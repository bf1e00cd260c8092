// text/detokenizer.h: token ids to text, one at a time, whole UTF-8 characters only.
// Owner: one sequence. Invariant: the concatenation of everything given out, Flush included, is
// Tokenizer::Decode of all ids, however they were cut into calls (but
// for `continues`).
#pragma once

#include <string>

#include "common/types.h"
#include "common/utf8.h"
#include "text/tokenizer.h"

namespace fathom::router {

class Detokenizer {
 public:
  // REQUIRES: `tokenizer` outlives this. `continues`: the text goes on after another one, and keeps
  // the space that it begins with where Decode strips that.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special, bool continues = false)
      : tokenizer_(tokenizer),
        skip_special_(skip_special),
        strip_space_(!continues && tokenizer->strips_first_space()) {}

  // Appends to *text what `id` completes. An id that the tokenizer does not have gives nothing: a
  // model's embedding may be padded.
  void Append(TokenId id, std::string* text);
  // The end of the sequence: an incomplete character becomes U+FFFD.
  void Flush(std::string* text) { stream_.Flush(text); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool strip_space_;  // From what comes first.
  Utf8Stream stream_;
};

}  // namespace fathom::router
