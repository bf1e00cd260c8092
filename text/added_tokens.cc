#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"

namespace fathom {

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    FATHOM_CHECK(!tokens_[i].content.empty());
    is_text_.push_back(tokens_[i].IsText());
    begins_[static_cast<uint8_t>(tokens_[i].content.front())] = true;
    const bool fresh = trie_.Insert(tokens_[i].content, static_cast<int32_t>(i));
    FATHOM_CHECK(fresh, "added token '{}' twice", tokens_[i].content);
  }
}

AddedTokenMatcher::Hit AddedTokenMatcher::Longest(std::string_view text,
                                                  size_t markup_bytes) const {
  Hit hit;
  int32_t node = ByteTrie::kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = trie_.Child(node, text[i]);
    if (node < 0) break;
    const int32_t token = trie_.Value(node);
    if (token >= 0 && (i < markup_bytes || is_text_[token])) hit = {i + 1, token};
  }
  return hit;
}

void AddedTokenMatcher::Split(std::string_view text, std::span<const ByteSpan> literal_spans,
                              std::vector<Piece>* pieces) const {
  size_t done = 0;  // The text before this offset is already in pieces.
  size_t literal = 0;
  size_t at = tokens_.empty() ? text.size() : 0;
  while (at < text.size()) {
    if (!begins_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    while (literal < literal_spans.size() && literal_spans[literal].end <= at) ++literal;
    const size_t limit =
        literal < literal_spans.size() ? std::max(literal_spans[literal].begin, at) : text.size();
    const Hit hit = Longest(text.substr(at), limit - at);
    if (hit.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[hit.token];
    size_t begin = at, end = at + hit.bytes;
    at = end;
    if (token.single_word &&
        ((begin > 0 && IsWordCharacter(LastCodePoint(text.substr(0, begin)))) ||
         (end < text.size() && IsWordCharacter(FirstCodePoint(text.substr(end)))))) {
      continue;
    }
    if (token.lstrip) begin = std::max(done, TrimRight(text.substr(0, begin)).size());
    if (token.rstrip) end = text.size() - TrimLeft(text.substr(end)).size();
    if (done < begin) pieces->push_back({{done, begin}, -1});
    pieces->push_back({{begin, end}, token.id});
    done = end;
  }
  if (done < text.size()) pieces->push_back({{done, text.size()}, -1});
}

}  // namespace fathom
