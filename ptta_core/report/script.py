"""The page's one small script.

Sorting moves the cards that are there; a click (or Enter) shows a cut caption in full and two buttons, keep and veto;
what was marked is saved as a CSV file that `ptta select` reads. Playing together keeps the second video within a tenth
of a second of the first; beside that button the players' own controls show under the pointer.
"""

SCRIPT = """
(function(){
  var sort=document.getElementById('sort');
  if(sort){
    sort.closest('label').hidden=false;
    sort.addEventListener('change',function(){
      var key=sort.value,sign=key==='o'?1:-1;
      document.querySelectorAll('.sheet').forEach(function(sheet){
        var cards=Array.from(sheet.children);
        var value=function(card){return card.dataset[key]===undefined?-Infinity:+card.dataset[key]};
        cards.sort(function(a,b){return sign*(value(a)-value(b))||a.dataset.o-b.dataset.o});
        sheet.append.apply(sheet,cards);
      });
    });
  }
  var marked=new Map(),bar=document.getElementById('marks');
  var show=function(){
    bar.hidden=!marked.size;
    bar.querySelector('b').textContent=marked.size;
  };
  var press=function(card,word){
    var now=marked.get(card.id)===word?'':word;
    if(now)marked.set(card.id,now);else marked.delete(card.id);
    card.classList.toggle('keep',now==='keep');
    card.classList.toggle('veto',now==='veto');
    card.querySelectorAll('.hand button').forEach(function(one){
      one.setAttribute('aria-pressed',String(one.textContent===now));
    });
    show();
  };
  var open=function(card){
    card.classList.toggle('open');
    if(!bar||card.querySelector('.hand'))return;
    var hand=document.createElement('div');
    hand.className='hand';
    ['keep','veto'].forEach(function(word){
      var button=document.createElement('button');
      button.type='button';
      button.textContent=word;
      button.setAttribute('aria-pressed','false');
      hand.append(button);
    });
    card.append(hand);
  };
  document.querySelectorAll('.sheet').forEach(function(sheet){
    sheet.addEventListener('click',function(event){
      var card=event.target.closest('li');
      if(!card)return;
      if(event.target.closest('.hand')){
        if(event.target.tagName==='BUTTON')press(card,event.target.textContent);
      }else open(card);
    });
    sheet.addEventListener('keydown',function(event){
      if(event.key==='Enter'&&event.target.tagName==='LI')open(event.target);
    });
  });
  if(bar){
    bar.querySelector('.save').addEventListener('click',function(){
      var lines=['clip_id,decision'];
      marked.forEach(function(word,id){lines.push(id+','+word)});
      var link=document.createElement('a');
      link.href=URL.createObjectURL(new Blob([lines.join('\\n')+'\\n'],{type:'text/csv'}));
      link.download='decisions.csv';
      link.click();
    });
    bar.querySelector('.clear').addEventListener('click',function(){
      marked.forEach(function(word,id){press(document.getElementById(id),word)});
    });
  }
  document.querySelectorAll('.pair').forEach(function(pair){
    var films=Array.from(pair.querySelectorAll('video')),button=pair.querySelector('button');
    if(films.length<2)return;
    button.hidden=false;
    films.forEach(function(f){
      f.controls=false;
      f.addEventListener('mouseenter',function(){f.controls=true});
      f.addEventListener('mouseleave',function(){f.controls=false});
    });
    var name=function(){button.textContent=films.some(function(f){return !f.paused})?'Pause all':'Play all'};
    films.forEach(function(f){f.addEventListener('play',name);f.addEventListener('pause',name)});
    films[0].addEventListener('timeupdate',function(){
      films.slice(1).forEach(function(f){
        if(!f.paused&&Math.abs(f.currentTime-films[0].currentTime)>0.1)f.currentTime=films[0].currentTime;
      });
    });
    button.addEventListener('click',function(){
      var playing=films.some(function(f){return !f.paused});
      films.forEach(function(f){if(playing)f.pause();else{f.currentTime=0;f.play()}});
    });
  });
})();
"""
