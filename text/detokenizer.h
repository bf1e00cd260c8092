// text/detokenizer.h: converts token ids to text, one at a time, in whole UTF-8 characters. Owner:
// one sequence. Invariant: the concatenation of all output, including Flush, equals
// Tokenizer::Decode of all ids, however they were divided into calls (except with `continues`).
#pragma once

#include <string>

#include "common/types.h"
#include "common/utf8.h"
#include "text/tokenizer.h"

namespace fathom {

class Detokenizer {
 public:
  // REQUIRES: `tokenizer` outlives this object. `continues`: the text follows another text, so a
  // leading space stays even if Decode would strip it.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special, bool continues = false)
      : tokenizer_(tokenizer),
        skip_special_(skip_special),
        strip_space_(!continues && tokenizer->strips_first_space()) {}

  // Appends to *text the characters that `id` completes. An unknown id adds nothing, because a
  // model's embedding may be padded.
  void Append(TokenId id, std::string* text);
  // Ends the sequence: an incomplete character becomes U+FFFD.
  void Flush(std::string* text) { stream_.Flush(text); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool strip_space_;  // Strip a space from the first output.
  Utf8Stream stream_;
};

}  // namespace fathom
