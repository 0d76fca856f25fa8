"""The page's style sheet."""

STYLE = """
:root{--bg:#fff;--ink:#15181c;--soft:#5a626c;--rule:#e2e5e9;--panel:#f5f6f8;--kept:#2563b0;--water:#3f78bf;
  --not:#c3c9d1;--warn:#a83a0a;--note-bg:#fff4e5;--note-ink:#6d3702;--note-rule:#f0c48a;--b0:#2563b0;--b1:#c2570c;
  --b2:#2e7d4f;--b3:#8e3f9e;--b4:#8a6d00;--b5:#0d7f86;--b6:#b42d54;--b7:#555e69}
@media screen and (prefers-color-scheme:dark){
  :root{--bg:#111316;--ink:#e6e8eb;--soft:#9aa3ad;--rule:#2a2e34;--panel:#1a1d21;--kept:#78abf0;--water:#4f86d0;
    --not:#474e57;--warn:#ff9c6b;--note-bg:#2b2013;--note-ink:#ffcf9a;--note-rule:#5c4220;--b0:#78abf0;--b1:#f29a5c;
    --b2:#6cc492;--b3:#cf8fdd;--b4:#d6b94a;--b5:#5cc4ca;--b6:#f0829f;--b7:#a5aeb8}
}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0 auto;padding:56px clamp(16px,4vw,48px) 96px;max-width:1296px;background:var(--bg);color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,sans-serif;
  font-variant-numeric:tabular-nums;-webkit-print-color-adjust:exact;print-color-adjust:exact}
p,h1,h2,h3,ul,ol,dl,dd,figure,pre{margin:0;padding:0}
ul,ol{list-style:none}
.eyebrow{color:var(--soft);font-size:13px}
h1{font-size:clamp(30px,5vw,44px);line-height:1.1;font-weight:650;letter-spacing:-.022em;margin:4px 0 14px;
  overflow-wrap:anywhere}
h2{font-size:22px;line-height:1.2;font-weight:650;letter-spacing:-.012em;margin-bottom:22px}
h3{font-size:15px;font-weight:650;margin:0 0 10px}
*+h3{margin-top:28px}
h2+h3{margin-top:0}
.lead{font-size:clamp(17px,2.2vw,20px);line-height:1.45;max-width:62ch;text-wrap:pretty}
section{margin-top:64px;padding-top:20px;border-top:1px solid var(--rule)}
.soft,.fine,.none{color:var(--soft)}
h3 .soft{font-weight:400}
.fine{font-size:13px;margin-top:8px}
.none{padding:2px 0}
.notice{display:inline-block;margin:14px 0 0;padding:6px 10px;border:1px solid var(--note-rule);border-radius:4px;
  background:var(--note-bg);color:var(--note-ink);font-size:13px;line-height:1.4;overflow-wrap:anywhere}
.notice strong{font-weight:650}
.notice span{opacity:.85;margin-left:.35em}
#clips>.notice{margin:0 0 18px}
.alert{color:var(--warn);font-weight:600;margin:10px 0;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:14px 28px;margin-top:26px}
.facts dt{color:var(--soft);font-size:13px}
.facts dd{overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:4px 20px;margin-top:26px;font-size:14px}
nav a{color:var(--kept);text-decoration:none}
nav a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--kept);outline-offset:2px}

.river{display:grid;grid-template-columns:repeat(10,minmax(0,1fr))}
.river>li{min-width:0;padding-bottom:10px}
.river .verb{font-size:13px;color:var(--soft)}
.band{display:block;margin:8px 0 10px;overflow:visible}
.water{fill:var(--water)}
.bed{stroke:var(--rule);stroke-width:2;stroke-dasharray:4 4;vector-effect:non-scaling-stroke}
.river .out b{display:block;font-size:25px;line-height:1.1;font-weight:650;letter-spacing:-.02em}
.river .work,.river .note{font-size:12.5px;line-height:1.45;color:var(--soft)}
.river .work{margin-top:8px}
.river .note{margin-top:4px;overflow-wrap:anywhere;padding-right:8px}
.river .failed{color:var(--warn);font-weight:600}
.river .dry b,.river .dry span{color:var(--soft);font-weight:400}

.key{display:flex;gap:18px;font-size:13px;color:var(--soft);margin:-8px 0 16px}
.key span::before{content:"";display:inline-block;width:10px;height:10px;margin-right:6px;background:var(--not)}
.key .kept::before{background:var(--kept)}
.three,.two,.side{display:grid;gap:36px}
.three{grid-template-columns:repeat(3,minmax(0,1fr))}
.two{grid-template-columns:repeat(2,minmax(0,1fr))}
.side{grid-template-columns:minmax(0,2fr) minmax(0,3fr);margin-top:44px}
.side p{text-wrap:pretty}
.side p+p{margin-top:8px}
figure>figcaption{font-weight:650}
.plot{padding:42px 6px 46px 46px}
.plot.named{padding-right:38px}
.plot svg{display:block;overflow:visible}
.plot text{font-size:12px;fill:var(--soft)}
.plot .grid{stroke:var(--rule)}
.plot .axis,.plot .tick{stroke:var(--soft)}
.plot .tick{opacity:.5}
.plot rect{stroke:var(--bg);stroke-width:1}
.plot rect.kept{fill:var(--kept)}
.plot rect.not{fill:var(--not)}
.plot line.mark{stroke:var(--warn);stroke-width:1.5}
.plot text.mark{fill:var(--warn);font-weight:650}
.plot path{fill:none;vector-effect:non-scaling-stroke;stroke-width:2;stroke-linejoin:round}
.plot path.raw{stroke:var(--not);stroke-width:1}
.plot path.smooth{stroke:var(--kept);stroke-width:2.25}
.plot circle.raw{fill:var(--kept)}
.plot line.level{stroke:var(--soft);stroke-dasharray:3 4;opacity:.7}
.plot text.name{font-weight:650}
PLACE_BRANCHES

.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:start;padding:7px 18px 7px 0;border-bottom:1px solid var(--rule);vertical-align:baseline;
  font-weight:400}
thead th{color:var(--soft);font-size:13px;white-space:nowrap}
.n{text-align:right;white-space:nowrap}
th:last-child,td:last-child{padding-right:0}
.wide+.notice{margin:10px 0 30px}
.verdicts{table-layout:fixed;min-width:560px}
.verdicts th:first-child{width:30%}
.thetas .n{width:1%}
.thetas .bar{min-width:70px;vertical-align:middle}
.bar div{height:8px;background:var(--not)}
.chosen td{font-weight:650}
.chosen .bar div{background:var(--kept)}
.failures{font-size:14px}
.failures+h3{margin-top:28px}
#failures .wide{margin-bottom:28px}
.failures .path{overflow-wrap:anywhere;min-width:16ch}

.controls{display:flex;flex-wrap:wrap;align-items:baseline;justify-content:space-between;gap:6px 24px;font-size:14px;
  color:var(--soft);margin:-8px 0 18px}
select,button{font:inherit;color:var(--ink);background:var(--panel);border:1px solid var(--rule);border-radius:4px;
  padding:3px 9px}
button{cursor:pointer}
.group{position:relative;margin-top:34px}
.group:first-child{margin-top:0}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:26px 18px}
.sheet li{min-width:0;font-size:13px;line-height:1.4;content-visibility:auto;contain-intrinsic-size:auto 240px}
.sheet img,.sheet .blank{display:block;width:100%;aspect-ratio:16/9;object-fit:contain;background:var(--panel);
  margin-bottom:7px}
.blank{display:grid!important;place-items:center;color:var(--soft);font-size:12px;background:var(--panel)}
.sheet b{font-size:15px;font-weight:650}
.sheet i{font-style:normal;color:var(--soft);float:right;line-height:21px;font-size:12px}
.sheet p+p{color:var(--soft)}
.sheet .why{color:var(--warn);overflow-wrap:anywhere}
.sheet .by{color:var(--kept)}
.sheet .said{color:var(--ink);margin-top:4px;display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:4;
  overflow:hidden;overflow-wrap:anywhere}
.sheet .open .said{-webkit-line-clamp:none}
.sheet .hand{display:flex;gap:6px;margin-top:6px}
.sheet li.keep img,.sheet li.keep .blank{outline:3px solid var(--kept);outline-offset:-3px}
.sheet li.veto img,.sheet li.veto .blank{outline:3px solid var(--warn);outline-offset:-3px;opacity:.45}
.hand button,.marks button{font:inherit;font-size:12px;padding:2px 9px;color:var(--ink);background:var(--panel);
  border:1px solid var(--rule);border-radius:4px;cursor:pointer}
.hand button[aria-pressed=true]{background:var(--ink);color:var(--bg)}
.marks{position:sticky;bottom:0;z-index:1;margin:24px 0 0;padding:10px 0;background:var(--bg);
  border-top:1px solid var(--rule);display:flex;gap:12px;align-items:center;flex-wrap:wrap}
.marks[hidden]{display:none}
.sheet .file{margin-top:4px;font-size:12px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
input.all{position:absolute;opacity:0}
label.all{position:absolute;right:0;top:0;font-size:14px;color:var(--kept);cursor:pointer}
input.all:focus-visible+label{outline:2px solid var(--kept);outline-offset:2px}
input.all:not(:checked)~.sheet>li:nth-child(n+49){display:none}
input.all:checked+label{visibility:hidden}

.pairs{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 40px}
.pair{display:grid;grid-template-rows:subgrid;grid-row:span 4;place-items:start;padding-bottom:44px}
.prompt{font-weight:600;margin-bottom:10px;overflow-wrap:anywhere;text-wrap:pretty}
.videos{width:100%;display:grid;grid-template-columns:1fr 1fr;gap:10px}
.videos video{display:block;width:100%;background:var(--panel)}
.videos .blank{width:100%;aspect-ratio:16/9}
.videos figcaption{font-size:13px;font-weight:400;color:var(--soft);margin-top:4px}
.pair .fine button{font-size:13px;margin-left:10px}
pre{font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
  overflow-wrap:anywhere;columns:2 44ch;column-gap:48px}

@media(max-width:1000px){
  .river{grid-template-columns:repeat(5,minmax(0,1fr));row-gap:22px}
  .three{grid-template-columns:1fr 1fr}
  .side,.pairs{grid-template-columns:1fr}
}
@media(max-width:640px){
  body{padding-top:32px}
  section{margin-top:48px}
  .three,.two{grid-template-columns:1fr}
  .side{gap:20px}
  .river{grid-template-columns:1fr;row-gap:0}
  .river>li{display:grid;grid-template-columns:84px minmax(0,1fr) auto;column-gap:12px;padding:9px 0;
    border-top:1px solid var(--rule);align-items:baseline}
  .river>li:first-child{border-top:0}
  .band{display:none}
  .river .out b{display:inline;font-size:19px}
  .river .work{grid-column:2/-1;margin:0;display:flex;flex-wrap:wrap;gap:0 12px}
  .river .work ul{display:flex;gap:12px}
  .river .note{grid-column:2/-1;margin:0}
  .sheet{grid-template-columns:1fr 1fr;gap:22px 12px}
  .sheet i{float:none;display:block;line-height:1.4}
  .facts{grid-template-columns:1fr 1fr}
    th,td{padding-right:12px}
  pre{columns:1;font-size:12px}
  .verdicts{table-layout:auto;min-width:0;font-size:13px}
  .verdicts .n{white-space:normal;padding-right:8px}
  .verdicts .n:last-child{padding-right:0}
  .verdicts thead th{font-size:12px}
  .failures thead{display:none}
  .failures tr{display:block;padding:8px 0;border-bottom:1px solid var(--rule)}
  .failures td{display:inline;border:0;padding:0 8px 0 0}
  .failures td.path{display:block;padding:2px 0}
  .failures td:nth-last-child(-n+2){display:none}
}
@media print{
  @page{margin:14mm}
  body{padding:0;font-size:10.5pt;max-width:none}
  nav,.controls,label.all,.pair button,.marks,.hand{display:none}
  section{margin-top:28px}
  h2,h3,.key{break-after:avoid}
  pre{font-size:8pt;columns:3 24ch;column-gap:24px}
  figure,.pair,.sheet li,tr,.river>li{break-inside:avoid}
  .sheet{grid-template-columns:repeat(5,1fr)}
  .sheet li{content-visibility:visible}
  .sheet .said{-webkit-line-clamp:8}
  .pairs{grid-template-columns:1fr 1fr}
  .river{grid-template-columns:repeat(10,minmax(0,1fr))}
  .river .out b{font-size:15pt}
  .river .work,.river .note,.river .verb,.river .out span{font-size:7.5pt}
  .three{grid-template-columns:repeat(3,minmax(0,1fr));gap:16px}
}
@media(prefers-reduced-motion:reduce){
  html{scroll-behavior:auto}
}
.strip{display:flex;gap:10px;overflow-x:auto}
.strip figure{flex:0 0 200px;min-width:0}
.strip video,.strip .blank{display:block;width:100%;background:var(--panel)}
.strip figcaption{font-size:13px;font-weight:400;color:var(--soft);margin-top:4px}
.near{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));gap:.6rem}
.near a{color:var(--ink);text-decoration:none}
.near img{display:block;width:100%;height:auto}
.learning{margin-top:22px}
.looks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));gap:26px 24px;margin-top:16px}
.looks li{min-width:0;font-size:13px;line-height:1.4;break-inside:avoid}
.looks img{display:block;max-width:100%;height:auto;margin-bottom:7px;background:var(--panel)}
.looks i{font-style:normal;color:var(--soft);margin-left:.6em}
.looks p{overflow-wrap:anywhere}
.worst{padding-left:1.6em}
.worst li{margin:10px 0;max-width:75ch}
.looks .file{color:var(--soft);font-size:12px}
""".replace(
    "PLACE_BRANCHES",
    "\n".join(f".plot path.b{i}{{stroke:var(--b{i})}}\n.plot .b{i}:not(path){{fill:var(--b{i})}}" for i in range(8)),
)
