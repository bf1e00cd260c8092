#include "text/detokenizer.h"

namespace fathom::router {

void Detokenizer::Append(TokenId id, std::string* text) {
  if (id < 0 || id >= tokenizer_->vocab_size()) return;
  if (skip_special_ && tokenizer_->IsSpecial(id)) return;
  stream_.Append(tokenizer_->TokenBytes(id), text);
}

}  // namespace fathom::router
