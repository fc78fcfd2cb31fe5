import { Graph, add, matmul } from "/work/main/src/tensor/index.ts";
import { Runtime, Value, allocate, PrepackedWeights, memory } from "/work/main/src/runtime/index.ts";
const rt = Runtime.open();
const V=(dims:number[],huge=true)=>{ const n=dims.reduce((a,b)=>a*b,1); const a=huge?allocate("float32",n):new Float32Array(n); for(let i=0;i<n;i++) a[i]=(i*7919%1000)/1000-.5; return new Value(a,dims); };
const time=(f:()=>void,min=0.25)=>{ f(); f(); let best=1e9; const t0=performance.now(); const all:number[]=[]; do { const t=performance.now(); f(); all.push(performance.now()-t); } while(performance.now()-t0<min*1e3||all.length<5); all.sort((a,b)=>a-b); return [all[0],all[all.length>>1]]; };
for (const huge of [true,false]) for (const [M,K,N] of [[2048,576,1536],[2048,1536,576],[2048,576,576],[256,576,1536],[64,576,1536],[32,576,1536],[16,576,1536],[8,576,1536],[1,576,1536],[8,576,49152],[512,576,49152]]) {
  const x=V([M,K],huge), w=V([K,N],huge), wt=V([N,K],huge), y=V([M,N],huge); const r:string[]=[];
  const go=(n:string,def:(g:Graph)=>void,ins:any,o:any)=>{ const g=new Graph(); def(g); const s=rt.createSession(g.build(),o); const [b,m]=time(()=>c.runSync()); function mk(){return s.bind(ins,{y})} var c=mk(); const f=2*M*K*N/1e6; r.push(`${n} ${(f/b).toFixed(0)}/${(f/m).toFixed(0)}`); s.release(); };
  var go2=(n:string,def:(g:Graph)=>void,ins:any,o:any)=>{ const g=new Graph(); def(g); const s=rt.createSession(g.build(),o); const c=s.bind(ins,{y}); const [b,m]=time(()=>c.runSync()); const f=2*M*K*N/1e6; r.push(`${n} ${(f/b).toFixed(0)}/${(f/m).toFixed(0)}`); s.release(); };
  go2("input",g=>g.output("y",matmul(g.input("x",["n",K]),g.input("w",[K,N]))),{x,w},{});
  go2("inputT",g=>g.output("y",matmul(g.input("x",["n",K]),g.input("w",[N,K]),{transB:true})),{x,w:wt},{});
  go2("weight",g=>g.output("y",matmul(g.input("x",["n",K]),g.weight("w",[K,N]))),{x},{weights:{w}});
  go2("pre",g=>g.output("y",matmul(g.input("x",["n",K]),g.weight("w",[K,N]))),{x},{weights:{w},prepacked:new PrepackedWeights()});
  go2("preT",g=>g.output("y",matmul(g.input("x",["n",K]),g.weight("w",[N,K]),{transB:true})),{x},{weights:{w:wt},prepacked:new PrepackedWeights()});
  if(M>=256) { const dy=V([M,N],huge), dw=V([K,N],huge); const g=new Graph(); g.output("y",matmul(g.input("x",["n",K]),g.input("d",["n",N]),{transA:true})); const s=rt.createSession(g.build()); const c=s.bind({x,d:dy},{y:dw}); const [b,m]=time(()=>c.runSync()); r.push(`transA(dW) ${(2*M*K*N/1e6/b).toFixed(0)}/${(2*M*K*N/1e6/m).toFixed(0)}`); }
  console.log(huge?"huge":"4k",[M,K,N].join("x"),r.join("  "));
}
