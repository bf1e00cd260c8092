#include "text/literal_text.h"

#include <algorithm>
#include <cstdint>

#include "text/utf8.h"

namespace fathom::router {
namespace {

constexpr std::string_view kMark = "\xEF\xB7\x90";           // U+FDD0
constexpr std::string_view kEscape = "\xEF\xB7\x91";         // U+FDD1
constexpr std::string_view kEscapedMark = "\xEF\xB7\x92";    // U+FDD2, behind kEscape
constexpr std::string_view kEscapedEscape = "\xEF\xB7\x93";  // U+FDD3, behind kEscape
constexpr size_t kMarkBytes = 3;

void AppendEscaped(std::string_view character, std::string* out) {
  if (character == kMark) {
    out->append(kEscape).append(kEscapedMark);
  } else if (character == kEscape) {
    out->append(kEscape).append(kEscapedEscape);
  } else {
    out->append(character);
  }
}

// Whether `text` begins with a string of the trie, or is the begin of one.
bool Agrees(const ByteTrie& trie, std::string_view text) {
  int32_t node = ByteTrie::kRoot;
  for (char byte : text) {
    node = trie.Child(node, byte);
    if (node < 0) return false;
    if (trie.Value(node) >= 0) return true;
  }
  return !text.empty();
}

}  // namespace

LiteralText::LiteralText(const Tokenizer& tokenizer) {
  for (const AddedToken& token : tokenizer.added_tokens()) {
    const std::string_view text = token.content;
    mark_all_ = mark_all_ || (token.normalized && tokenizer.has_normalizer());
    tokens_.Insert(text, 0);
    for (size_t at = NextCharacter(text, 0); at < text.size(); at = NextCharacter(text, at)) {
      ends_.Insert(text.substr(at), 0);
    }
  }
}

std::string LiteralText::Mark(std::string_view value) const {
  std::string out;
  out.reserve(value.size() + 16);
  const bool all = mark_all_ && std::any_of(value.begin(), value.end(),
                                            [](char c) { return static_cast<uint8_t>(c) >= 0x80; });
  // A template may strip the value, and its neighbours may complete a token: so what begins one at
  // the end, and ends one at the begin, with white space or without, is marked as well.
  const std::string_view content = TrimRight(value);
  bool at_begin = true;
  for (size_t at = 0; at < value.size();) {
    const size_t end = NextCharacter(value, at);
    const std::string_view character = value.substr(at, end - at);
    AppendEscaped(character, &out);
    const std::string_view stripped = content.substr(std::min(at, content.size()));
    bool mark = all || Agrees(tokens_, value.substr(at)) || Agrees(tokens_, stripped);
    if (at_begin) mark = mark || Agrees(ends_, value.substr(at)) || Agrees(ends_, stripped);
    if (mark) out.append(kMark);
    at_begin = at_begin && IsWhiteSpace(FirstCodePoint(character));
    at = end;
  }
  return out;
}

std::string LiteralText::Escape(std::string_view value) {
  std::string out;
  out.reserve(value.size());
  for (size_t at = 0; at < value.size();) {
    const size_t end = NextCharacter(value, at);
    AppendEscaped(value.substr(at, end - at), &out);
    at = end;
  }
  return out;
}

MarkedText LiteralText::TakeMarks(std::string_view rendered) {
  MarkedText taken;
  taken.text.reserve(rendered.size());
  size_t last = 0;  // Where the last character of taken.text begins.
  for (size_t at = 0; at < rendered.size();) {
    const std::string_view rest = rendered.substr(at);
    if (rest.starts_with(kMark)) {
      const bool again = !taken.literal_spans.empty() && taken.literal_spans.back().begin == last;
      if (last < taken.text.size() && !again) {
        taken.literal_spans.push_back({last, taken.text.size()});
      }
      at += kMarkBytes;
      continue;
    }
    last = taken.text.size();
    const std::string_view escaped =
        rest.starts_with(kEscape) ? rest.substr(kMarkBytes, kMarkBytes) : std::string_view();
    if (escaped == kEscapedMark || escaped == kEscapedEscape) {
      taken.text.append(escaped == kEscapedMark ? kMark : kEscape);
      at += 2 * kMarkBytes;
    } else {
      const size_t end = NextCharacter(rendered, at);
      taken.text.append(rendered.substr(at, end - at));
      at = end;
    }
  }
  return taken;
}

bool LiteralText::HasMarks(std::string_view text) {
  return text.find(kMark) != text.npos || text.find(kEscape) != text.npos;
}

}  // namespace fathom::router
