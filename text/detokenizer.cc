#include "text/detokenizer.h"

namespace fathom {

void Detokenizer::Append(TokenId id, std::string* text) {
  if (id < 0 || id >= tokenizer_->vocab_size()) return;
  if (skip_special_ && tokenizer_->IsSpecial(id)) return;
  const size_t before = text->size();
  stream_.Append(tokenizer_->TokenBytes(id), text);
  if (!strip_space_ || text->size() == before) return;
  strip_space_ = false;
  if ((*text)[before] == ' ') text->erase(before, 1);
}

}  // namespace fathom
