#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "common/utf8.h"

namespace fathom {
namespace {

// Whether NFC could change this character, or combine it with the one before it. A character for
// which this is false starts a new group; NFC of a text is the concatenation of the NFC of its
// groups.
bool MayCompose(char32_t c) {
  if (c < 0x300) return false;                  // Composed Latin is decomposed, but composed again.
  if (c >= 0x1160 && c <= 0x11FF) return true;  // Hangul vowels and finals.
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  return property->category == UTF8PROC_CATEGORY_MN || property->category == UTF8PROC_CATEGORY_MC ||
         property->category == UTF8PROC_CATEGORY_ME || property->combining_class != 0 ||
         (property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0);
}

// Processes one group: decompose, order by combining class, compose. A group may be the whole text
// (a letter with a million marks), so each of the three steps takes at most O(n log n).
class GroupComposer {
 public:
  void Append(std::string_view group, std::string* out) {
    code_points_.clear();
    for (size_t at = 0; at < group.size();) {
      const Utf8Step step = ScanUtf8(group.substr(at));
      AppendDecomposed(static_cast<utf8proc_int32_t>(step.code_point));
      at += step.bytes;
    }
    OrderMarks();
    const utf8proc_ssize_t size = utf8proc_normalize_utf32(
        code_points_.data(), static_cast<utf8proc_ssize_t>(code_points_.size()), kCompose);
    for (utf8proc_ssize_t i = 0; i < size; ++i) {
      utf8proc_uint8_t bytes[4];
      const utf8proc_ssize_t count = utf8proc_encode_char(code_points_[i], bytes);
      out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
    }
  }

 private:
  static constexpr auto kCompose =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  // The longest canonical decomposition has 4 code points.
  static constexpr size_t kDecomposedMax = 32;

  // A code point that utf8proc cannot decompose stays unchanged (utf8proc knows all of them).
  void AppendDecomposed(utf8proc_int32_t code_point) {
    utf8proc_int32_t parts[kDecomposedMax];
    int boundary_class = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(code_point, parts, kDecomposedMax, kCompose, &boundary_class);
    if (count < 1 || static_cast<size_t>(count) > kDecomposedMax) {
      code_points_.push_back(code_point);
    } else {
      code_points_.insert(code_points_.end(), parts, parts + count);
    }
  }

  // The canonical ordering algorithm: sorts each run of marks by class and keeps the order of equal
  // ones. (utf8proc's own version swaps neighbours, which is quadratic.)
  void OrderMarks() {
    for (size_t begin = 0; begin < code_points_.size();) {
      if (ClassOf(code_points_[begin]) == 0) {
        ++begin;
        continue;
      }
      marks_.clear();
      size_t end = begin;
      for (; end < code_points_.size(); ++end) {
        const int mark_class = ClassOf(code_points_[end]);
        if (mark_class == 0) break;
        marks_.emplace_back(mark_class, code_points_[end]);
      }
      std::stable_sort(marks_.begin(), marks_.end(),
                       [](const Mark& a, const Mark& b) { return a.first < b.first; });
      for (const Mark& mark : marks_) code_points_[begin++] = mark.second;
    }
  }

  static int ClassOf(utf8proc_int32_t code_point) {
    return utf8proc_get_property(code_point)->combining_class;
  }

  using Mark = std::pair<int, utf8proc_int32_t>;  // Combining class and code point.
  std::vector<utf8proc_int32_t> code_points_;
  std::vector<Mark> marks_;
};

// The offset of the first character that may compose; npos: none.
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

bool NfcMayChange(std::string_view text) { return FirstComposing(text) != std::string_view::npos; }

bool NormalizeNfc(std::string_view text, std::span<const ByteSpan> spans, std::string* out,
                  std::vector<ByteSpan>* out_spans) {
  if (!NfcMayChange(text)) return false;
  out->clear();
  out_spans->clear();
  GroupComposer composer;
  size_t next_span = 0;
  bool open = false;  // spans[next_span] has started.
  for (size_t at = 0; at < text.size();) {
    size_t end = NextCharacter(text, at);
    bool composes = MayCompose(FirstCodePoint(text.substr(at)));
    while (end < text.size() && MayCompose(FirstCodePoint(text.substr(end)))) {
      composes = true;
      end = NextCharacter(text, end);
    }
    const size_t out_begin = out->size();
    if (composes) {
      composer.Append(text.substr(at, end - at), out);
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

}  // namespace fathom
