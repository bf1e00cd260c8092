#include "text/json_scanner.h"

#include <string_view>

namespace fathom {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// The places in a number.
constexpr uint8_t kMinus = 0, kZero = 1, kInteger = 2, kPoint = 3, kFraction = 4, kExponent = 5,
                  kExponentSign = 6, kExponentDigits = 7;

bool MayEnd(uint8_t place) {
  return place == kZero || place == kInteger || place == kFraction || place == kExponentDigits;
}

}  // namespace

JsonScanner::Status JsonScanner::Next(char c) {
  if (status_ == Status::kBroken) return status_;
  if (!Take(c)) {
    status_ = Status::kBroken;
  } else if (expect_ == Expect::kEnd) {
    status_ = Status::kWhole;
  }
  ++offset_;
  return status_;
}

bool JsonScanner::Take(char c) {
  if (scalar_ == Scalar::kString) return TakeString(c);
  if (scalar_ == Scalar::kWord) return TakeWord(c);
  if (scalar_ == Scalar::kNumber) {
    if (TakeNumber(c)) return true;
    if (!MayEnd(number_)) return false;
    EndValue(offset_);  // The byte is not of the number.
  }
  if (IsSpace(c)) return true;
  switch (expect_) {
    case Expect::kObject:
      return c == '{' && Open(c);
    case Expect::kFirstKey:
      if (c == '}') return Close(c);
      [[fallthrough]];
    case Expect::kKey:
      if (c != '"') return false;
      scalar_ = Scalar::kString;
      is_key_ = true;
      if (open_.size() == 1) members_.push_back({.key_begin = offset_ + 1});
      return true;
    case Expect::kColon:
      expect_ = Expect::kValue;
      return c == ':';
    case Expect::kFirstValue:
      if (c == ']') return Close(c);
      [[fallthrough]];
    case Expect::kValue:
      return BeginValue(c);
    case Expect::kNext:
      if (c != ',') return Close(c);
      expect_ = open_.back() == '{' ? Expect::kKey : Expect::kValue;
      return true;
    case Expect::kEnd:
      return false;
  }
  return false;
}

bool JsonScanner::BeginValue(char c) {
  if (open_.size() == 1) {
    members_.back().value_begin = offset_;
    members_.back().value_first = c;
  }
  if (c == '{' || c == '[') return Open(c);
  if (c == '"') {
    scalar_ = Scalar::kString;
    is_key_ = false;
    return true;
  }
  if (c == '-' || IsDigit(c)) {
    scalar_ = Scalar::kNumber;
    number_ = c == '-' ? kMinus : c == '0' ? kZero : kInteger;
    return true;
  }
  word_ = c == 't' ? "rue" : c == 'f' ? "alse" : c == 'n' ? "ull" : "";
  scalar_ = Scalar::kWord;
  return !word_.empty();
}

bool JsonScanner::TakeString(char c) {
  if (hex_left_ > 0) {
    --hex_left_;
    return IsHex(c);
  }
  if (escaped_) {
    escaped_ = false;
    if (c == 'u') hex_left_ = 4;
    return std::string_view("\"\\/bfnrtu").find(c) != std::string_view::npos;
  }
  if (c == '\\') {
    escaped_ = true;
    return true;
  }
  if (c != '"') return static_cast<unsigned char>(c) >= 0x20;
  if (!is_key_) {
    EndValue(offset_ + 1);
    return true;
  }
  scalar_ = Scalar::kNone;
  if (open_.size() == 1) members_.back().key_end = offset_;
  expect_ = Expect::kColon;
  return true;
}

// False: the byte is not of the number.
bool JsonScanner::TakeNumber(char c) {
  const bool digit = IsDigit(c), exponent = c == 'e' || c == 'E';
  switch (number_) {
    case kMinus:
      if (digit) number_ = c == '0' ? kZero : kInteger;
      return digit;
    case kZero:
    case kInteger:
      if (digit) return number_ == kInteger;
      if (c == '.') number_ = kPoint;
      if (exponent) number_ = kExponent;
      return c == '.' || exponent;
    case kPoint:
    case kFraction:
      if (digit) number_ = kFraction;
      if (exponent && number_ == kFraction) {
        number_ = kExponent;
        return true;
      }
      return digit;
    default:
      if (digit) number_ = kExponentDigits;
      if ((c == '+' || c == '-') && number_ == kExponent) {
        number_ = kExponentSign;
        return true;
      }
      return digit;
  }
}

bool JsonScanner::TakeWord(char c) {
  if (word_.front() != c) return false;
  word_.erase(0, 1);
  if (word_.empty()) EndValue(offset_ + 1);
  return true;
}

bool JsonScanner::Open(char c) {
  if (open_.size() == kDepthMax) return false;
  open_ += c;
  expect_ = c == '{' ? Expect::kFirstKey : Expect::kFirstValue;
  return true;
}

bool JsonScanner::Close(char c) {
  if (c != (open_.back() == '{' ? '}' : ']')) return false;
  open_.pop_back();
  if (open_.empty()) {
    expect_ = Expect::kEnd;
  } else {
    EndValue(offset_ + 1);
  }
  return true;
}

// A value that is whole; of the outermost object if that is the only bracket.
void JsonScanner::EndValue(size_t end) {
  scalar_ = Scalar::kNone;
  expect_ = Expect::kNext;
  if (open_.size() == 1) members_.back().value_end = end;
}

}  // namespace fathom
