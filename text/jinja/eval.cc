#include "text/jinja/eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "text/jinja/builtins.h"

namespace fathom::jinja {

// Names and their values. Each iteration of a loop, each call of a macro, and the bodies of `with`,
// `filter`, `call` and block `set` have a scope of their own; an `if` has none.
struct Scope {
  std::shared_ptr<Scope> parent;  // The enclosing scope in the source, searched next.
  // The texts belong to the AST or the caller.
  std::vector<std::pair<std::string_view, Value>> names;

  void Set(std::string_view name, Value value) {
    const auto found = std::find_if(names.begin(), names.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    if (found != names.end()) {
      found->second = std::move(value);
    } else {
      names.emplace_back(name, std::move(value));
    }
  }
};

struct Closure {
  const Node* macro;
  std::shared_ptr<Scope> scope;  // Where it was defined.
};

namespace {

constexpr int64_t kCancelCheckSteps = 1000;

enum class Flow { kNext, kBreak, kContinue };

class Evaluator {
 public:
  Evaluator(int64_t now_unix_s, const EvalLimits& limits)
      : now_unix_s_(now_unix_s), limits_(limits), cancel_(limits_.cancelled, kCancelCheckSteps) {}

  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;
  // Breaks reference cycles: namespaces may hold each other or themselves, and a scope holds its
  // macros, which hold the scope.
  ~Evaluator() {
    for (const auto& space : spaces_) space.name_space()->clear();
    for (const auto& scope : with_macros_) scope->names.clear();
  }

  Str Run(const Block& block, const Variables& globals) {
    scope_ = std::make_shared<Scope>();
    for (const std::string_view name : FunctionNames())
      scope_->Set(name, Value(Callable{std::string(name)}));
    for (const auto& [name, value] : globals) scope_->Set(name, value);
    const Inner inner(this, scope_);
    Execute(block);
    return out_.Take();
  }

 private:
  // Counts every evaluation and limits nesting.
  struct Entered {
    Entered(Evaluator* e, int line) : evaluator(e) {
      if (++e->steps_ > e->limits_.steps_max) {
        throw TemplateError(fmt::format("line {}: the template takes more than {} steps", line,
                                        e->limits_.steps_max));
      }
      if (e->cancel_.After(1)) throw RenderCancelled();
      if (++e->depth_ > e->limits_.depth_max) {
        throw TemplateError(
            fmt::format("line {}: nested deeper than {}", line, e->limits_.depth_max));
      }
    }
    ~Entered() { --evaluator->depth_; }
    Evaluator* evaluator;
  };

  // Makes a scope inside `outer` for the lifetime of this object.
  struct Inner {
    Inner(Evaluator* e, std::shared_ptr<Scope> outer) : evaluator(e), before(std::move(e->scope_)) {
      e->scope_ = std::make_shared<Scope>(Scope{std::move(outer), {}});
    }
    explicit Inner(Evaluator* e) : Inner(e, e->scope_) {}
    ~Inner() { evaluator->scope_ = std::move(before); }
    Inner(const Inner&) = delete;
    Inner& operator=(const Inner&) = delete;
    Evaluator* evaluator;
    std::shared_ptr<Scope> before;
  };

  Value Get(const std::string& name) const {
    for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
      for (const auto& [known, value] : scope->names) {
        if (known == name) return value;
      }
    }
    return Value(Undefined{name});
  }

  void CheckOutput() const {
    if (static_cast<int64_t>(out_.size()) > limits_.bytes_max) {
      throw TemplateError(
          fmt::format("the rendered text is longer than {} bytes", limits_.bytes_max));
    }
  }

  // ---- Statements ----
  Flow Execute(const Block& block) {
    for (const auto& node : block) {
      const Flow flow = Execute(*node);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow Execute(const Node& node) {
    const Entered entered(this, node.line);
    switch (node.kind) {
      case NodeKind::kText:
        out_.Append(node.text);
        CheckOutput();
        return Flow::kNext;
      case NodeKind::kOutput:
        out_.Append(Eval(*node.expr).Text());
        CheckOutput();
        return Flow::kNext;
      case NodeKind::kIf:
        for (const Branch& branch : node.branches) {
          if (branch.condition == nullptr || Eval(*branch.condition).Truthy())
            return Execute(branch.body);
        }
        return Flow::kNext;
      case NodeKind::kFor:
        return For(node);
      case NodeKind::kSet:
        Set(node);
        return Flow::kNext;
      case NodeKind::kWith:
        return With(node);
      case NodeKind::kFilter:
        captured_ = Value(Captured(node.body));
        out_.Append(Eval(*node.expr).Text());
        CheckOutput();
        return Flow::kNext;
      case NodeKind::kMacro:
        scope_->Set(node.text, MakeMacro(node));
        return Flow::kNext;
      case NodeKind::kCall:
        out_.Append(CallWithBody(node).Text());
        CheckOutput();
        return Flow::kNext;
      case NodeKind::kBreak:
        return Flow::kBreak;
      case NodeKind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  // Binds one loop item or one set value to its names; several names unpack a list.
  void Bind(const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) {
      scope_->Set(names[0], value);
      return;
    }
    const List parts = Iterate(value);
    if (parts.size() != names.size()) {
      throw TemplateError(
          fmt::format("cannot unpack {} values into {} names", parts.size(), names.size()));
    }
    for (size_t i = 0; i < names.size(); ++i) scope_->Set(names[i], parts[i]);
  }

  Flow For(const Node& node) {
    List items = Iterate(Eval(*node.expr));
    if (node.filter != nullptr) {
      List kept;
      for (Value& item : items) {
        const Inner inner(this);
        Bind(node.targets, item);
        if (Eval(*node.filter).Truthy()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      const Inner inner(this);
      return Execute(node.otherwise);
    }
    for (size_t i = 0; i < items.size(); ++i) {
      const Entered entered(this, node.line);
      const Inner inner(this);
      Bind(node.targets, items[i]);
      if (node.takes_loop) scope_->Set("loop", Loop(items, i));
      if (Execute(node.body) == Flow::kBreak) break;
    }
    return Flow::kNext;
  }

  Flow With(const Node& node) {
    List values;  // The values do not see each other.
    for (const ExprPtr& value : node.defaults) values.push_back(Eval(*value));
    const Inner inner(this);
    for (size_t i = 0; i < values.size(); ++i) scope_->Set(node.targets[i], std::move(values[i]));
    return Execute(node.body);
  }

  // The keys are made only once, because each item of a loop has such a map.
  static Value Loop(const List& items, size_t i) {
    static const Value kIndex0("index0"), kIndex("index"), kFirst("first"), kLast("last"),
        kLength("length"), kRevindex("revindex"), kRevindex0("revindex0"), kPrevitem("previtem"),
        kNextitem("nextitem"), kCycle("cycle"), kDepth("depth"), kDepth0("depth0");
    const auto index = static_cast<int64_t>(i), size = static_cast<int64_t>(items.size());
    Map loop;
    loop.reserve(12);
    loop.emplace_back(kIndex0, index);
    loop.emplace_back(kIndex, index + 1);
    loop.emplace_back(kFirst, i == 0);
    loop.emplace_back(kLast, i + 1 == items.size());
    loop.emplace_back(kLength, size);
    loop.emplace_back(kRevindex, size - index);
    loop.emplace_back(kRevindex0, size - index - 1);
    loop.emplace_back(kPrevitem, i == 0 ? Value(Undefined{"previtem"}) : items[i - 1]);
    loop.emplace_back(kNextitem,
                      i + 1 == items.size() ? Value(Undefined{"nextitem"}) : items[i + 1]);
    loop.emplace_back(kDepth, int64_t{1});
    loop.emplace_back(kDepth0, int64_t{0});
    loop.emplace_back(kCycle, Callable{"cycle", std::make_shared<const Value>(index)});
    return Value(std::move(loop));
  }

  void Set(const Node& node) {
    if (node.captures) captured_ = Value(Captured(node.body));
    const Value value = Eval(*node.expr);
    if (node.text.empty()) {
      Bind(node.targets, value);
      return;
    }
    Namespace* space = Get(node.targets[0]).name_space();
    if (space == nullptr) {
      throw TemplateError(fmt::format("line {}: {} is not a namespace, so {}.{} cannot be set",
                                      node.line, node.targets[0], node.targets[0], node.text));
    }
    (*space)[node.text] = value;
  }

  Str Captured(const Block& body) {
    StrBuilder outer = std::exchange(out_, {});
    const Inner inner(this);
    Execute(body);
    return std::exchange(out_, std::move(outer)).Take();
  }

  // ---- Expressions ----
  Value Eval(const Expr& e) {
    const Entered entered(this, e.line);
    switch (e.kind) {
      case ExprKind::kLiteral:
        return e.value;
      case ExprKind::kName:
        return Get(e.name);
      case ExprKind::kList:
        return Value(EvalAll(e, 0));
      case ExprKind::kTuple:
        return Value::Tuple(EvalAll(e, 0));
      case ExprKind::kDict:
        return Dict(e);
      case ExprKind::kAttribute:
        return Attribute(Eval(*e.args[0]), e);
      case ExprKind::kSubscript:
        return Subscript(Eval(*e.args[0]), Eval(*e.args[1]));
      case ExprKind::kSlice:
        return Slice(Eval(*e.args[0]), EvalOr(e.args[1]), EvalOr(e.args[2]), EvalOr(e.args[3]));
      case ExprKind::kCall:
        return Call(Eval(*e.args[0]), Arguments(e));
      case ExprKind::kFilter:
        return ApplyFilter(e.name, Eval(*e.args[0]), Arguments(e));
      case ExprKind::kTest:
        return Value(ApplyTest(e.name, Eval(*e.args[0]), Arguments(e)) != e.negate);
      case ExprKind::kUnary:
        return Unary(e.name, Eval(*e.args[0]));
      case ExprKind::kBinary:
        return Binary(e);
      case ExprKind::kCompare:
        return Compare(e);
      case ExprKind::kIf:
        return Eval(*e.args[1]).Truthy() ? Eval(*e.args[0]) : EvalOr(e.args[2]);
      case ExprKind::kCaptured:
        return std::exchange(captured_, {});
    }
    return Value();
  }

  Value EvalOr(const ExprPtr& expr) { return expr != nullptr ? Eval(*expr) : Value(); }

  List EvalAll(const Expr& e, size_t from) {
    List values;
    for (size_t i = from; i < e.args.size(); ++i) values.push_back(Eval(*e.args[i]));
    return values;
  }

  CallArgs Arguments(const Expr& e) {
    CallArgs args;
    args.args = EvalAll(e, 1);
    for (const auto& [name, expr] : e.named) args.named.emplace_back(name, Eval(*expr));
    args.bytes_max = limits_.bytes_max;
    return args;
  }

  Value Dict(const Expr& e) {
    MapBuilder map;
    for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
      Value key = Eval(*e.args[i]);
      map.Set(std::move(key), Eval(*e.args[i + 1]));
    }
    return Value(map.Take());
  }

  static Value Method(const Value& object, std::string_view name) {
    return Value(Callable{std::string(name), std::make_shared<const Value>(object)});
  }
  // x.name looks for a method first, then for an entry, as in Jinja; x["name"] looks in the
  // opposite order.
  static Value Attribute(const Value& object, const Expr& e) {
    return HasMethod(object, e.name) ? Method(object, e.name) : Item(object, e.value);
  }
  static Value Subscript(const Value& object, const Value& key) {
    Value found = Item(object, key);
    if (found.is_undefined() && key.is_string() && HasMethod(object, key.string()->view()))
      return Method(object, key.string()->view());
    return found;
  }

  Value Call(const Value& callee, CallArgs args) {
    const Callable* function = callee.callable();
    if (function == nullptr)
      throw TemplateError(fmt::format("{} cannot be called", callee.TypeName()));
    if (function->closure != nullptr) return CallMacro(*function->closure, std::move(args));
    if (function->self != nullptr) return CallMethod(*function->self, function->name, args);
    Value result = CallFunction(function->name, args, now_unix_s_);
    if (result.name_space() != nullptr) spaces_.push_back(result);
    return result;
  }

  // ---- Macros ----
  Value MakeMacro(const Node& node) {
    if (with_macros_.empty() || with_macros_.back() != scope_) with_macros_.push_back(scope_);
    return Value(
        Callable{node.text, nullptr, std::make_shared<const Closure>(Closure{&node, scope_})});
  }

  Value CallWithBody(const Node& node) {
    const Expr& call = *node.expr;
    const Value callee = Eval(*call.args[0]);
    CallArgs args = Arguments(call);
    args.named.emplace_back("caller", MakeMacro(node));
    return Call(callee, std::move(args));
  }

  // Removes the named argument with this name from `args` and returns it.
  static std::optional<Value> Take(CallArgs* args, const std::string& name) {
    const auto found = std::find_if(args->named.begin(), args->named.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    if (found == args->named.end()) return std::nullopt;
    Value value = std::move(found->second);
    args->named.erase(found);
    return value;
  }

  Value CallMacro(const Closure& closure, CallArgs args) {
    const Node& macro = *closure.macro;
    const std::vector<std::string>& parameters = macro.targets;
    const auto refuse = [&](const std::string& what) {
      throw TemplateError(fmt::format("the macro '{}' {}", macro.text, what));
    };
    const Inner inner(this, closure.scope);
    if (args.args.size() > parameters.size() && !macro.takes_varargs) {
      refuse(fmt::format("takes at most {} arguments, and the call gives {}", parameters.size(),
                         args.args.size()));
    }
    if (macro.takes_caller)
      scope_->Set("caller", Take(&args, "caller").value_or(Value(Undefined{"caller"})));
    for (size_t i = 0; i < parameters.size(); ++i) {
      std::optional<Value> named = Take(&args, parameters[i]);
      if (i < args.args.size()) {
        if (named) refuse(fmt::format("has two values for its argument '{}'", parameters[i]));
        scope_->Set(parameters[i], args.args[i]);
      } else if (named) {
        scope_->Set(parameters[i], *std::move(named));
      } else if (macro.defaults[i] != nullptr) {
        scope_->Set(parameters[i], Eval(*macro.defaults[i]));
      } else {
        scope_->Set(parameters[i], Value(Undefined{parameters[i]}));
      }
    }
    if (!args.named.empty() && !macro.takes_kwargs)
      refuse(fmt::format("has no argument named '{}'", args.named[0].first));
    if (macro.takes_varargs) {
      const size_t used = std::min(parameters.size(), args.args.size());
      scope_->Set("varargs", Value::Tuple(args.After(used).args));
    }
    if (macro.takes_kwargs) {
      MapBuilder rest;
      for (auto& [name, value] : args.named) rest.Set(Value(name), std::move(value));
      scope_->Set("kwargs", Value(rest.Take()));
    }
    StrBuilder outer = std::exchange(out_, {});
    Execute(macro.body);
    return Value(std::exchange(out_, std::move(outer)).Take());
  }

  static Value Unary(const std::string& op, const Value& value) {
    if (op == "not") return Value(!value.Truthy());
    if (!value.is_number() || value.big_int() != nullptr)
      throw TemplateError(fmt::format("unsupported operand for {}: {}", op, value.TypeName()));
    if (value.is_float()) return Value(op == "-" ? -value.AsDouble() : value.AsDouble());
    if (op == "-" && value.AsInt() == INT64_MIN) throw TemplateError("-(-2**63) is too large");
    return Value(op == "-" ? -value.AsInt() : value.AsInt());
  }

  Value Binary(const Expr& e) {
    Value left = Eval(*e.args[0]);
    if (e.name == "and") return left.Truthy() ? Eval(*e.args[1]) : left;
    if (e.name == "or") return left.Truthy() ? left : Eval(*e.args[1]);
    return BinaryOp(e.name, left, Eval(*e.args[1]), limits_.bytes_max);
  }

  Value Compare(const Expr& e) {
    Value left = Eval(*e.args[0]);
    for (size_t i = 0; i < e.ops.size(); ++i) {
      Value right = Eval(*e.args[i + 1]);
      if (!CompareOp(e.ops[i], left, right)) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  const int64_t now_unix_s_;
  const EvalLimits limits_;
  CancelCheck cancel_;
  int64_t steps_ = 0;
  int depth_ = 0;
  std::shared_ptr<Scope> scope_;
  Value captured_;             // For kCaptured.
  std::vector<Value> spaces_;  // All namespaces that were made.
  std::vector<std::shared_ptr<Scope>> with_macros_;
  StrBuilder out_;
};

}  // namespace

Str Render(const Block& block, const Variables& globals, int64_t now_unix_s,
           const EvalLimits& limits) {
  return Evaluator(now_unix_s, limits).Run(block, globals);
}

}  // namespace fathom::jinja
