#include "common/utf8.h"

#include <utf8proc.h>

#include <cstring>

namespace fathom {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

size_t AsciiPrefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080ull) != 0) break;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i;
}

}  // namespace

Utf8Step ScanUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Step::kCharacter, 1, lead};
  size_t size;
  uint8_t low = 0x80, high = 0xBF;  // Of the second byte; all others have the full range.
  char32_t code_point;
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
    code_point = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    code_point = lead & 0x0F;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    code_point = lead & 0x07;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Utf8Step::kInvalid, 1, 0};
  }
  for (size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {Utf8Step::kIncomplete, i, 0};
    if (byte(i) < low || byte(i) > high) return {Utf8Step::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte(i) & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Step::kCharacter, size, code_point};
}

size_t FirstInvalidUtf8(std::string_view text) {
  size_t offset = 0;
  while (true) {
    offset += AsciiPrefix(text.substr(offset));
    if (offset == text.size()) return std::string_view::npos;
    const Utf8Step step = ScanUtf8(text.substr(offset));
    if (step.kind != Utf8Step::kCharacter) return offset;
    offset += step.bytes;
  }
}

char32_t FirstCodePoint(std::string_view text) { return ScanUtf8(text).code_point; }

char32_t LastCodePoint(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return ScanUtf8(text.substr(begin)).code_point;
}

size_t NextCharacter(std::string_view text, size_t offset) {
  ++offset;
  while (offset < text.size() && (static_cast<uint8_t>(text[offset]) & 0xC0) == 0x80) ++offset;
  return offset;
}

bool IsWhiteSpace(char32_t code_point) {
  if (code_point < 0x80) return code_point == ' ' || (code_point >= '\t' && code_point <= '\r');
  return code_point == 0x85 || code_point == 0xA0 || code_point == 0x1680 ||
         (code_point >= 0x2000 && code_point <= 0x200A) || code_point == 0x2028 ||
         code_point == 0x2029 || code_point == 0x202F || code_point == 0x205F ||
         code_point == 0x3000;
}

bool IsWordCharacter(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // The joiners, and the symbols that are Alphabetic.
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
             (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189);
  }
}

std::string_view TrimLeft(std::string_view text) {
  while (!text.empty() && IsWhiteSpace(FirstCodePoint(text))) {
    text.remove_prefix(NextCharacter(text, 0));
  }
  return text;
}

std::string_view TrimRight(std::string_view text) {
  while (!text.empty() && IsWhiteSpace(LastCodePoint(text))) {
    do {
      text.remove_suffix(1);
    } while (!text.empty() && (static_cast<uint8_t>(text.data()[text.size()]) & 0xC0) == 0x80);
  }
  return text;
}

void Utf8Stream::Append(std::string_view bytes, std::string* text) {
  if (pending_.empty()) {
    const size_t ascii = AsciiPrefix(bytes);
    text->append(bytes.substr(0, ascii));
    bytes.remove_prefix(ascii);
    if (bytes.empty()) return;
  }
  pending_.append(bytes);
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = ScanUtf8(rest);
    if (step.kind == Utf8Step::kIncomplete) break;
    text->append(step.kind == Utf8Step::kCharacter ? rest.substr(0, step.bytes) : kReplacement);
    rest.remove_prefix(step.bytes);
  }
  pending_.erase(0, pending_.size() - rest.size());
}

void Utf8Stream::Flush(std::string* text) {
  if (!pending_.empty()) text->append(kReplacement);
  pending_.clear();
}

std::string Shortened(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return std::string(text);
  size_t end = bytes_max;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::string ToUtf8(std::string_view bytes) {
  std::string text;
  Utf8Stream stream;
  stream.Append(bytes, &text);
  stream.Flush(&text);
  return text;
}

}  // namespace fathom
