#include "text/character_vocabulary.h"

#include <charconv>

namespace fathom {

CharacterToken ReadCharacterToken(std::string_view spelling) {
  if (spelling.size() == 6 && spelling.starts_with("<0x") && spelling.ends_with('>')) {
    unsigned byte = 0;
    const auto [end, error] =
        std::from_chars(spelling.data() + 3, spelling.data() + 5, byte, /*base=*/16);
    if (error == std::errc() && end == spelling.data() + 5) {
      return {{static_cast<char>(byte)}, true};
    }
  }
  std::string bytes;
  PrepareCharacters({}, spelling, false, {}, &bytes, nullptr);
  return {std::move(bytes), false};
}

void PrepareCharacters(const CharacterVocabulary& vocabulary, std::string_view text, bool at_begin,
                       std::span<const ByteSpan> spans, std::string* out,
                       std::vector<ByteSpan>* out_spans) {
  using Prefix = CharacterVocabulary::Prefix;
  out->clear();
  if (out_spans != nullptr) out_spans->assign(spans.begin(), spans.end());
  if (text.empty()) return;
  const bool missing = !text.starts_with(' ') && !text.starts_with(kMetaspace);
  const Prefix prefix = vocabulary.prefix;
  if (prefix == Prefix::kEach || (missing && prefix == Prefix::kMissing) ||
      (missing && at_begin && prefix == Prefix::kFirst)) {
    out->push_back(' ');
  }
  // Moves the borders of spans, in order, to the offsets of their bytes in the output.
  size_t border = 0;
  const auto move_borders = [&](size_t up_to) {
    for (; out_spans != nullptr && border < 2 * spans.size(); ++border) {
      ByteSpan& moved = (*out_spans)[border / 2];
      const bool begin = border % 2 == 0;
      if ((begin ? spans[border / 2].begin : spans[border / 2].end) > up_to) return;
      (begin ? moved.begin : moved.end) = out->size();
    }
  };
  for (size_t at = 0; at < text.size();) {
    move_borders(at);
    if (text.substr(at).starts_with(kMetaspace)) {
      out->push_back(' ');
      at += kMetaspace.size();
    } else {
      out->push_back(text[at++]);
    }
  }
  move_borders(text.size());
}

}  // namespace fathom
