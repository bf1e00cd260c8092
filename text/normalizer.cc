#include "text/normalizer.h"

#include <utf8proc.h>

#include <cstdint>
#include <cstdlib>

#include "common/check.h"
#include "text/utf8.h"

namespace fathom::router {
namespace {

// Whether the character could change, or take part in a change of the one before it. A character
// that is not such starts a group of its own: NFC of the text is the groups' NFC, one after the
// other.
bool MayCompose(char32_t c) {
  if (c < 0x300) return false;                  // Composed Latin decomposes, but composes back.
  if (c >= 0x1160 && c <= 0x11FF) return true;  // Hangul vowels and finals.
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  return property->category == UTF8PROC_CATEGORY_MN || property->category == UTF8PROC_CATEGORY_MC ||
         property->category == UTF8PROC_CATEGORY_ME || property->combining_class != 0 ||
         (property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0);
}

void AppendNfc(std::string_view group, std::string* out) {
  utf8proc_uint8_t* composed = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(group.data()),
                   static_cast<utf8proc_ssize_t>(group.size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  FATHOM_CHECK(size >= 0, "utf8proc_map: {}", utf8proc_errmsg(size));
  out->append(reinterpret_cast<const char*>(composed), static_cast<size_t>(size));
  std::free(composed);
}

// Offset of the first character that may compose; npos if there is none.
size_t FirstComposing(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0xCC) {  // Below U+0300.
      ++at;
      continue;
    }
    const Utf8Step step = ScanUtf8(text.substr(at));
    if (MayCompose(step.code_point)) return at;
    at += step.bytes;
  }
  return std::string_view::npos;
}

}  // namespace

bool NormalizeNfc(std::string_view text, std::span<const ByteSpan> spans, std::string* out,
                  std::vector<ByteSpan>* out_spans) {
  if (FirstComposing(text) == std::string_view::npos) return false;
  out->clear();
  out_spans->clear();
  size_t next_span = 0;
  bool open = false;  // spans[next_span] has begun.
  for (size_t at = 0; at < text.size();) {
    size_t end = NextCharacter(text, at);
    bool composes = MayCompose(FirstCodePoint(text.substr(at)));
    while (end < text.size() && MayCompose(FirstCodePoint(text.substr(end)))) {
      composes = true;
      end = NextCharacter(text, end);
    }
    const size_t out_begin = out->size();
    if (composes) {
      AppendNfc(text.substr(at, end - at), out);
    } else {
      out->append(text.substr(at, end - at));
    }
    while (next_span < spans.size() && spans[next_span].begin < end) {
      if (!open) {
        const bool touches = !out_spans->empty() && out_spans->back().end > out_begin;
        if (!touches) out_spans->push_back({out_begin, out->size()});
        open = true;
      }
      out_spans->back().end = out->size();
      if (spans[next_span].end > end) break;
      ++next_span;
      open = false;
    }
    at = end;
  }
  return true;
}

}  // namespace fathom::router
